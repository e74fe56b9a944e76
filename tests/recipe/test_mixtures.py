"""Mixtures in recipes: notices, ramps, caps, epochs, SmolLM3's published stages, annealing pairs, plateaus."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from smelt.errors import InputError
from smelt.recipe.branch import resolve_from
from smelt.recipe.dump import diff, to_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.mixtures.annealing import annealing_pair
from smelt.recipe.mixtures.caps import with_caps
from smelt.recipe.mixtures.demand import epoch_warnings, source_tokens, stage_demands
from smelt.recipe.mixtures.notices import notices
from smelt.recipe.mixtures.plateau import Point, recommend, trend
from smelt.recipe.mixtures.weights import between, shares
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.adapt import Adapt

MIXTURES = Path(__file__).parents[2] / "recipes" / "mixtures"
BATCH = 64
mixtures = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0001, 50), min_size=1)


def recipe(*stages: dict[str, Any], amendments: Any = (), **train: Any) -> Recipe:
    """Stages of a batch of 64 tokens that draw from `a`, `b` and `c`."""
    return Recipe.model_validate(
        {
            "name": "mixed",
            "dataset": {"shards": dict(zip("abc", "abc", strict=True)), "span": 64},
            "train": {"sequence": 8, "batch_tokens": BATCH, "stages": list(stages), **train},
            "amendments": amendments,
        }
    )


def stage(name: str, steps: int, mixture: dict[str, float], **fields: Any) -> dict[str, Any]:
    return {"name": name, "steps": steps, "mixture": mixture, **fields}


def drawn(plan: Plan, source: str) -> list[float]:
    """The share of a source at each step."""
    return [shares(plan.at(step).mixture).get(source, 0.0) for step in range(plan.total_steps)]


# notices


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 0.6, "b": 0.4057}, "sum to 1.0057, not to 1;"),
        ({"a": 60, "b": 39.5}, "sum to 99.5, not to 100;"),
        ({"a": 0.6, "b": 0.4}, ""),
        ({"a": 0.1, "b": 0.2, "c": 0.7}, ""),
        ({"a": 3, "b": 1}, ""),
        ({"a": 60, "b": 40}, ""),
    ],
)
def test_weights_that_nearly_sum_to_one_are_accepted_with_a_notice(weights: dict[str, float], said: str) -> None:
    """DATA-01: and proportions such as 3 to 1 without a word."""
    lines = notices(recipe(stage("one", 10, weights)))
    assert said in (lines[0] if lines else "") and bool(lines) == bool(said)


@pytest.mark.parametrize("weights", [{"a": 0.0}, {"a": -0.1, "b": 1.1}, {"a": float("nan")}, {"a": float("inf")}, {}])
def test_weights_that_are_no_mixture_are_refused(weights: dict[str, float]) -> None:
    """DATA-01."""
    with pytest.raises(ValidationError):
        recipe(stage("one", 10, weights))


# SmolLM3's stages


def test_smollm3s_stages_end_at_their_published_steps_and_tokens() -> None:
    """DATA-03, DATA-04."""
    plan = Plan(load_recipe(MIXTURES / "smollm3.yaml"))
    ends = [demand.end for demand in stage_demands(plan)]
    assert ends == [3_450_000, 4_198_000, 4_720_000]
    assert [round(plan.tokens_before(end) / 1e12, 2) for end in ends] == [8.14, 9.90, 11.14]
    names = [plan.at(step).name for step in (0, 3_449_999, 3_450_000, 4_197_999, 4_198_000, 4_719_999)]
    assert names == ["base", "base", "quality", "quality", "decay", "decay"]
    assert [step for step in (3_450_000, 4_198_000, 4_720_000) if plan.boundary(step)] == ends
    assert not plan.boundary(3_449_999)


def test_smollm3s_weights_have_the_published_class_sums() -> None:
    """DATA-04: 72.8/12.0/12.5/2.7, 64.9/11.7/14.3/9.1 and 50.4/13.1/23.2/11.4 with 1.8 % of reasoning."""
    known = load_recipe(MIXTURES / "smollm3.yaml")
    sums = []
    for each in known.section("train").stages:
        part = shares(each.mixture)
        classes = known.dataset.classes.values()
        sums.append([round(100 * sum(part.get(source, 0) for source in sources), 1) for sources in classes])
    assert sums == [[72.8, 12, 12.5, 2.7, 0], [64.9, 11.7, 14.3, 9.1, 0], [50.4, 13.1, 23.2, 11.4, 1.8]]
    assert set(known.sources) == {source for sources in known.dataset.classes.values() for source in sources}


def test_smollm3s_decay_stage_is_accepted_as_published() -> None:
    """DATA-01: its weights sum to 1.0057."""
    known = load_recipe(MIXTURES / "smollm3.yaml")
    decay = known.section("train").stages[2].mixture
    assert sum(decay.values()) == pytest.approx(1.0057, abs=1e-9)
    assert "stage 'decay': its mixture's weights sum to 1.0057, not to 1; they are normalised" in notices(known)


def test_the_classes_of_its_report_are_a_preset_of_their_own() -> None:
    """DATA-04."""
    known = load_recipe(MIXTURES / "smollm3-classes.yaml")
    parts = [[round(100 * share) for share in each.mixture.values()] for each in known.section("train").stages]
    assert parts == [[75, 12, 10, 3], [63, 12, 15, 10], [51, 12, 24, 13]]


# ramps


def test_a_ramp_takes_the_mixture_over_in_equal_changes() -> None:
    ramped = recipe(stage("one", 10, {"a": 1}), stage("two", 30, {"a": 1, "b": 1}, ramp={"steps": 20, "rungs": 4}))
    part = drawn(Plan(ramped), "b")
    assert part[:10] == [0] * 10
    assert part[10:30] == pytest.approx([share for share in (0.0625, 0.1875, 0.3125, 0.4375) for _ in range(5)])
    assert part[30:] == [0.5] * 10


def test_a_ramp_in_tokens_counts_them_through_batch_warmup() -> None:
    rungs = [{"batch_tokens": 16, "until": 480}]
    ramp = {"tokens": 640, "rungs": 2}
    warming = recipe(stage("one", 20, {"a": 1}), stage("two", 40, {"b": 1}, ramp=ramp), batch_warmup={"rungs": rungs})
    plan = Plan(warming)
    assert plan.tokens_before(20) == 320
    part = {plan.tokens_before(step) - 320: share for step, share in enumerate(drawn(plan, "b")) if step >= 20}
    assert {share for tokens, share in part.items() if tokens < 320} == {0.25}
    assert {share for tokens, share in part.items() if 320 <= tokens < 640} == {0.75}
    assert {share for tokens, share in part.items() if tokens >= 640} == {1.0}


def test_a_ramp_cut_by_an_amendment_goes_on_where_it_was() -> None:
    stages = stage("one", 10, {"a": 1}), stage("two", 30, {"b": 1}, ramp={"steps": 20})
    plain = drawn(Plan(recipe(*stages)), "b")
    amended = recipe(*stages, amendments=[{"from_step": 17, "set": {"train.clip": 0.5}}])
    assert drawn(Plan(amended), "b") == plain


def test_a_branch_ramps_from_the_mixture_of_its_trunk() -> None:
    trunk = recipe(stage("one", 50, {"a": 1}))
    branch = recipe(
        stage("two", 20, {"b": 1}, ramp={"steps": 10, "rungs": 2}), **{"from": {"run": "mixed", "step": 30}}
    )
    assert drawn(Plan(resolve_from(branch, trunk)), "b")[30:] == [0.25] * 5 + [0.75] * 5 + [1.0] * 10


@pytest.mark.parametrize(
    ("ramp", "message"),
    [
        ({"steps": 5}, "no mixture before the first stage's"),
        ({"steps": 5, "tokens": 640}, "exactly one of 'tokens' and 'steps'"),
        ({}, "exactly one of 'tokens' and 'steps'"),
    ],
)
def test_ramps_that_cannot_be_are_refused(ramp: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(stage("one", 10, {"a": 1}, ramp=ramp))


@given(mixtures, mixtures, st.floats(0, 1))
def test_what_lies_between_two_mixtures_is_one(old: dict[str, float], new: dict[str, float], part: float) -> None:
    """Shares are whole ten-thousandths that sum to one, near the straight line, and leave no source out."""
    mixed = between(old, new, part)
    units = [round(10_000 * share) for share in mixed.values()]
    assert sum(units) == 10_000 and all(unit >= 1 for unit in units)
    assert [unit / 10_000 for unit in units] == list(mixed.values())
    a, b = shares(old), shares(new)
    line = {name: (1 - part) * a.get(name, 0) + part * b.get(name, 0) for name in {*a, *b}}
    assert set(mixed) == {name for name, share in line.items() if share > 0}
    assert sum(abs(share - line[name]) for name, share in mixed.items()) / 2 < 0.001


# epochs and caps


def test_epochs_of_three_percent_of_the_playbooks_run() -> None:
    """DATA-05: 3 % of 8 to 9T tokens from 54B."""
    stages = [{"name": "base", "tokens": tokens, "mixture": {"a": 0.03, "b": 0.97}} for tokens in ("8T", "9T")]
    assert [round(source_tokens(Plan(recipe(each)))["a"] / 54e9, 1) for each in stages] == [4.4, 5.0]


def test_more_than_five_epochs_are_said_aloud() -> None:
    """DATA-05."""
    known = recipe(stage("one", 100, {"a": 3, "b": 1}))
    assert source_tokens(Plan(known)) == {"a": 4800, "b": 1600}
    assert epoch_warnings(known, {"a": 960, "b": 320}) == []
    [said] = epoch_warnings(known, {"a": 959, "b": 10**6, "c": 1})
    assert said.startswith("a: 5.0 epochs") and "train.caps.a" in said


def test_a_cap_scales_a_source_down_in_every_stage() -> None:
    stages = stage("one", 100, {"a": 0.5, "b": 0.5}), stage("two", 100, {"a": 0.2, "b": 0.5, "c": 0.3})
    capped = with_caps(recipe(*stages, caps={"b": {"epochs": 2}}), {"a": 10**6, "b": 1600, "c": 10**6})
    tokens = source_tokens(Plan(capped))
    assert 0.999 * 3200 < tokens["b"] <= 3200
    assert sum(tokens.values()) == pytest.approx(200 * BATCH)
    one, two = (shares(Plan(capped).at(step).mixture) for step in (0, 150))
    assert two["a"] / two["c"] == pytest.approx(2 / 3) and one["b"] / one["a"] == pytest.approx(
        two["b"] / two["a"] / 2.5
    )


def test_a_cap_that_is_not_reached_changes_nothing() -> None:
    plain = recipe(stage("one", 100, {"a": 0.5, "b": 0.5}), caps={"b": {"tokens": 3200}})
    capped = with_caps(plain, dict.fromkeys("abc", 10**6))
    assert capped.section("train").caps["b"].factor == 1
    assert source_tokens(Plan(capped)) == source_tokens(Plan(plain))


def test_a_cap_is_worked_out_once_and_stays() -> None:
    """The frozen factor holds when the run is made longer, so that no step taken would change."""
    available = {"a": 10**6, "b": 1600, "c": 1}
    caps = {"b": {"epochs": 1}}
    frozen = with_caps(recipe(stage("one", 100, {"a": 1, "b": 1}), caps=caps), available)
    longer = recipe(stage("one", 400, {"a": 1, "b": 1}), caps=caps)
    assert with_caps(longer, available, frozen).section("train").caps == frozen.section("train").caps
    assert with_caps(longer, available).section("train").caps != frozen.section("train").caps
    other = recipe(stage("one", 400, {"a": 1, "b": 1}), caps={"b": {"epochs": 3}})
    assert with_caps(other, available, frozen).section("train").caps["b"].factor != (
        frozen.section("train").caps["b"].factor
    )


def test_caps_that_cannot_be_kept_are_refused_by_name() -> None:
    both = recipe(stage("one", 100, {"a": 1, "b": 1}), caps={"a": {"tokens": 100}, "b": {"tokens": 100}})
    with pytest.raises(InputError, match=r"train\.caps\.[ab]: at most 100 tokens of it leave a stage"):
        with_caps(both, {"a": 1000, "b": 1000})
    with pytest.raises(ValidationError, match=r"train\.caps: unknown source 'd'"):
        recipe(stage("one", 100, {"a": 1}), caps={"d": {"epochs": 1}})
    trunk = recipe(stage("one", 50, {"a": 1}))
    start = {"from": {"run": "mixed", "step": 30}}
    branch = recipe(stage("two", 20, {"a": 1, "b": 1}), caps={"a": {"tokens": 1000}}, **start)
    with pytest.raises(InputError, match=r"train\.caps\.a: the trunk has read 1,920 tokens"):
        with_caps(resolve_from(branch, trunk), {"a": 1000, "b": 1000})


def test_ramps_caps_and_adaptation_are_in_the_frozen_recipe(tmp_path: Path) -> None:
    known = with_caps(load_recipe(MIXTURES / "curriculum.yaml"), {"docs": 10**6, "code": 10**6, "math": 10**5})
    (tmp_path / "frozen.yaml").write_text(to_yaml(known))
    assert load_recipe(tmp_path / "frozen.yaml") == known
    assert known.section("train").caps["math"].factor is not None


# the annealing protocol and the pairs of recipes/mixtures


def test_an_annealing_pair_is_sixty_percent_candidate_beside_its_control(tmp_path: Path) -> None:
    """DATA-09: off one checkpoint, the learning rate decaying to zero in both."""
    trunk = recipe(stage("one", 500, {"a": 3, "b": 1}), optimizer={"lr": 0.5})
    pair = [Recipe.model_validate(data) for data in annealing_pair(trunk, 400, "c", 6400)]
    candidate, control = (resolve_from(each, trunk) for each in pair)
    assert shares(Plan(candidate).at(450).mixture) == pytest.approx({"a": 0.3, "b": 0.1, "c": 0.6})
    assert shares(Plan(control).at(450).mixture) == {"a": 0.75, "b": 0.25}
    changed = {change.key for change in diff(candidate, control)}
    assert changed == {"name", *(f"train.stages.0.mixture.{source}" for source in "abc")}
    for each in (candidate, control):
        plan = Plan(each)
        assert (plan.first, plan.total_steps, plan.at(450).name) == (400, 500, "anneal")
        assert plan.at(450).clock.schedule.decay_fraction == 1 and plan.at(450).train.optimizer.lr == 0.5


def test_an_annealing_pair_keeps_the_packing_of_the_stage_it_leaves() -> None:
    trunk = recipe(stage("one", 500, {"a": 3, "b": 1}, packing="best-fit"))
    for each in annealing_pair(trunk, 400, "c", 6400):
        assert Plan(resolve_from(Recipe.model_validate(each), trunk)).at(450).packing == "best-fit"


def test_an_annealing_candidate_may_be_new_and_is_then_in_both_recipes() -> None:
    """DATA-09."""
    trunk = recipe(stage("one", 500, {"a": 3, "b": 1}))
    pair = [Recipe.model_validate(data) for data in annealing_pair(trunk, 400, "new", 6400, shards="shards/new")]
    assert [each.sources for each in pair] == [("a", "b", "c", "new")] * 2
    for arguments, message in [
        ((501, "c"), "has steps 1 to 500"),
        ((400, "new"), "name its folder of token shards"),
    ]:
        with pytest.raises(InputError, match=message):
            annealing_pair(trunk, *arguments, 6400)


@pytest.mark.parametrize(
    "names",
    [
        ("anneal-candidate", "anneal-control"),  # DATA-09
        ("ratio-20", "ratio-40", "ratio-50", "ratio-60", "ratio-80"),  # DATA-10
        ("off-target-0", "off-target-10", "off-target-25"),  # DATA-11
        ("quality-late", "quality-early"),  # DATA-12
        ("repeated-fresh", "repeated-small"),  # DATA-13
        ("vocab-512", "vocab-1k", "vocab-2k", "vocab-4k"),  # TOK-08
    ],
    ids=lambda names: names[0],
)
def test_recipes_to_be_compared_differ_in_one_thing_and_train_on_as_many_tokens(names: tuple[str, ...]) -> None:
    """DATA-09, DATA-10, DATA-11, DATA-12, DATA-13, TOK-08."""
    first, *others = [load_recipe(MIXTURES / f"{name}.yaml") for name in names]
    for other in others:
        changed = {change.key for change in diff(first, other)} - {"name"}
        allowed = ("tokenizer.train.vocab",) if names[0].startswith("vocab") else ("train.stages.",)
        assert changed and all(key.startswith(allowed) for key in changed)
        plans = [Plan(each) for each in (first, other)]
        assert len({plan.tokens_before(plan.total_steps) for plan in plans}) == 1


def test_quality_comes_late_or_early_in_equal_amounts() -> None:
    """DATA-12."""
    late, early = (Plan(load_recipe(MIXTURES / f"quality-{name}.yaml")) for name in ("late", "early"))
    assert source_tokens(late) == pytest.approx(source_tokens(early))
    assert drawn(late, "math")[0] == 0 == drawn(early, "math")[-1]


# plateaus


def section(**fields: Any) -> Adapt:
    capabilities = {name: {"tasks": [name], "sources": [name[0]]} for name in ("alpha", "beta", "code")}
    return Adapt.model_validate({"capabilities": capabilities, **fields})


def curve(start: float, gain: float, points: int = 6, error: float = 0.004, wobble: float = 0.002) -> list[Point]:
    """Evaluations a billion tokens apart, `gain` from first to last, around which they wobble."""
    return [Point(1e9 * i, start + gain * i / (points - 1) + wobble * (-1) ** i, error) for i in range(points)]


def test_a_stalled_capability_beside_a_rising_one_asks_for_more_of_its_sources() -> None:
    """DATA-15."""
    curves = {"alpha": curve(0.3, 0.0, error=0.002), "beta": curve(0.2, 0.15), "code": curve(0.1, 0.1)}
    found = recommend(section(gain=0.02), curves, {"a": 0.1, "b": 0.6, "c": 0.3})
    assert found is not None and found.stalled == ("alpha",)
    assert {name: each.state for name, each in found.trends.items()} == (
        {"alpha": "stalled", "beta": "rising", "code": "rising"}
    )
    assert found.mixture["a"] == pytest.approx(0.15 / 1.05, abs=1e-4)
    assert found.mixture["b"] / found.mixture["c"] == pytest.approx(2, abs=1e-3)
    assert str(found).startswith("alpha (")


@pytest.mark.parametrize(
    "curves",
    [
        {"alpha": curve(0.3, 0.1), "beta": curve(0.2, 0.15)},  # all rise
        {"alpha": curve(0.3, 0.0, error=0.002), "beta": curve(0.2, 0.0, error=0.002)},  # all stall
        {"alpha": curve(0.3, 0.0, error=0.05, wobble=0.04), "beta": curve(0.2, 0.15)},  # too noisy to say
        {"alpha": curve(0.3, 0.0, points=5), "beta": curve(0.2, 0.15)},  # too early to say
        {"alpha": curve(0.3, 0.0), "beta": []},
    ],
    ids=["rising", "stalled", "noisy", "early", "unmeasured"],
)
def test_nothing_is_recommended_without_a_sure_plateau_and_a_sure_rise(curves: dict[str, list[Point]]) -> None:
    """DATA-15."""
    assert recommend(section(gain=0.02), curves, {"a": 0.5, "b": 0.5}) is None


def test_a_falling_capability_has_stalled_and_a_saturating_one_stalls_in_the_end() -> None:
    """DATA-15: the newest evaluations count, not the rise before them."""
    assert trend(curve(0.5, -0.1), 6, 0.01).state == "stalled"
    saturating = [Point(float(i), 0.5 * (1 - 0.5**i), 0.001) for i in range(16)]
    states = [trend(saturating[:end], 5, 0.02).state for end in range(1, 17)]
    assert states[:4] == ["too short"] * 4 and states[4] == "rising" and states[-1] == "stalled"
    assert states == sorted(states, key=["too short", "rising", "unclear", "stalled"].index)


def test_noise_alone_rarely_makes_a_plateau_of_a_rise() -> None:
    """DATA-15: a capability that gains twice the threshold is called stalled in fewer than one case of twenty."""
    import random

    draw = random.Random(0)
    called = sum(
        trend([Point(float(i), 0.04 * i / 5 + draw.gauss(0, 0.01), 0.01) for i in range(6)], 6, 0.02).state == "stalled"
        for _ in range(400)
    )
    assert called < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"alpha": {"tasks": ["sums"], "sources": ["a"]}, "beta": {"tasks": ["sums"], "sources": ["b"]}},
            "evals.tasks",
        ),
        ({"alpha": {"sources": ["a"]}, "beta": {"sources": ["b"]}}, "exactly one of 'tasks' and 'validation'"),
        (
            {"alpha": {"validation": ["a"], "sources": ["a"]}, "beta": {"validation": ["a"], "sources": ["a"]}},
            r"validation: unknown source 'a'",
        ),
    ],
)
def test_adaptation_that_cannot_be_measured_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(stage("one", 10, {"a": 1}), adapt={"capabilities": change})
