"""The plan of a run: which stage, batch, setting and tokens each step has, through stages, warmup and amendments."""

from typing import Any

import pytest
from pydantic import ValidationError

from smelt.optim.schedules import learning_rate
from smelt.recipe.dump import to_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe

MODEL = {"hidden": 16, "layers": 2, "attention": {"heads": 2, "kv_heads": 1}, "feedforward": {"width": 32}}


def recipe(*stages: dict[str, Any], amendments: Any = (), **train: Any) -> Recipe:
    """Stages of a batch of 64 tokens, learning rate 1 without warmup, and a source `a` and `b`."""
    whole = stages or ({"name": "one", "steps": 10}, {"name": "two", "steps": 10})
    return Recipe.model_validate(
        {
            "name": "plan",
            "dataset": {"shards": {"a": "a", "b": "b"}, "span": 64},
            "model": MODEL,
            "train": {
                "sequence": 8,
                "batch_tokens": 64,
                "optimizer": {"lr": 1.0},
                "schedule": {"kind": "wsd", "warmup_steps": 0, "decay_fraction": 0},
                "stages": [{"mixture": {"a": 1}, **stage} for stage in whole],
                **train,
            },
            "amendments": amendments,
        }
    )


def cuts(plan: Plan) -> list[tuple[int, int, str]]:
    return [(segment.first, segment.end, segment.name) for segment in plan.segments]


def test_stages_follow_one_another_and_tokens_are_rounded_up_to_whole_batches() -> None:
    plan = Plan(recipe({"name": "one", "tokens": 65}, {"name": "two", "steps": 3}))
    assert cuts(plan) == [(0, 2, "one"), (2, 5, "two")]
    assert plan.total_steps == 5
    assert [plan.at(step).name for step in (0, 1, 2, 4, 99)] == ["one", "one", "two", "two", "two"]
    assert [plan.boundary(step) for step in range(6)] == [False, False, True, False, False, True]
    assert [plan.tokens_before(step) for step in (0, 1, 5)] == [0, 64, 320]


def test_batch_warmup_counts_tokens_exactly_over_the_switch_and_the_stages() -> None:
    """OPT-14: each step has its batch by the tokens trained before it; what is seen adds up at every step."""
    rungs = [{"batch_tokens": 16, "until": 100}, {"batch_tokens": 32, "until": 200}]
    plan = Plan(recipe({"name": "one", "tokens": 150}, {"name": "two", "tokens": 300}, batch_warmup={"rungs": rungs}))
    tokens, steps = 0, []
    while tokens < 176 + 300:
        batch = 16 if tokens < 100 else 32 if tokens < 200 else 64
        steps.append((tokens, batch))
        tokens += batch
    assert [(plan.tokens_before(step), plan.at(step).batch_tokens) for step in range(plan.total_steps)] == steps
    assert plan.tokens_before(plan.total_steps) == tokens
    assert plan.at(8).name == "one" and plan.at(9).name == "two"


def test_deepseek_v3s_batch_warmup_has_seen_its_tokens_at_the_switch() -> None:
    """OPT-14: 12.6M tokens a batch until 469B tokens, then 62.9M."""
    rungs = [{"batch_tokens": 12_582_912, "until": 469 * 10**9}]
    plan = Plan(
        recipe(
            {"name": "all", "tokens": 10**12},
            sequence=64,
            batch_tokens=62_914_560,
            batch_warmup={"rungs": rungs},
        )
    )
    switch = plan.segments[1].first
    assert plan.tokens_before(switch - 1) < 469 * 10**9 <= plan.tokens_before(switch)
    assert plan.tokens_before(switch) == switch * 12_582_912
    assert plan.tokens_before(switch + 1000) == switch * 12_582_912 + 1000 * 62_914_560


def test_what_a_stage_sets_holds_from_there_on() -> None:
    plan = Plan(
        recipe(
            {"name": "one", "steps": 2},
            {"name": "two", "steps": 2, "set": {"train.clip": 0.5, "model.position.theta": 7}},
            {"name": "three", "steps": 2, "set": {"train.optimizer.lr": 0.1}},
        )
    )
    facts = [(each.train.clip, each.model.position.theta, each.train.optimizer.lr) for each in plan.segments]
    assert facts == [(1.0, 50_000, 1.0), (0.5, 7, 1.0), (0.5, 7, 0.1)]


def test_an_amendment_changes_what_comes_after_it_and_nothing_before() -> None:
    plan = Plan(
        recipe(
            amendments=[
                {"from_step": 4, "set": {"train.optimizer.lr": 0.5, "train.clip": 0.1}},
                {"from_step": 12, "set": {"train.stages.1.mixture": {"b": 1}, "model.position.theta": 9}},
            ]
        )
    )
    assert cuts(plan) == [(0, 4, "one"), (4, 10, "one"), (10, 12, "two"), (12, 20, "two")]
    assert [each.train.optimizer.lr for each in plan.segments] == [1, 0.5, 0.5, 0.5]
    assert [each.mixture for each in plan.segments] == [{"a": 1}, {"a": 1}, {"a": 1}, {"b": 1}]
    assert [each.model.position.theta for each in plan.segments] == [50_000, 50_000, 50_000, 9]
    assert [plan.boundary(step) for step in (4, 10, 12, 20)] == [False, True, False, True]


def test_an_amendment_comes_after_what_its_stage_set_and_before_what_later_ones_set() -> None:
    stages = [{"name": name, "steps": 4, "set": {"train.clip": clip}} for name, clip in (("one", 0.5), ("two", 0.2))]
    plan = Plan(recipe(*stages, amendments=[{"from_step": 2, "set": {"train.clip": 0.1}}]))
    assert [(each.first, each.train.clip) for each in plan.segments] == [(0, 0.5), (2, 0.1), (4, 0.2)]


def test_tighter_clipping_expires_by_itself() -> None:
    """MARA-12: temporary tighter clipping expires by itself."""
    plan = Plan(recipe(amendments=[{"from_step": 3, "until_step": 6, "set": {"train.clip": 0.1}}]))
    assert [(each.first, each.train.clip) for each in plan.segments] == [(0, 1), (3, 0.1), (6, 1), (10, 1)]


def test_an_amendment_lengthens_a_run_as_if_it_had_been_planned_longer() -> None:
    """OPT-08: the learning rates of a WSD run extended before its decay are those of one planned longer."""
    schedule = {"kind": "wsd", "warmup_steps": 3, "decay_fraction": 0.25}
    longer = Plan(recipe({"name": "one", "steps": 80}, schedule=schedule))
    extended = Plan(
        recipe(
            {"name": "one", "steps": 40},
            schedule=schedule,
            amendments=[{"from_step": 30, "set": {"train.stages.0.steps": 80}}],
        )
    )
    assert extended.total_steps == 80
    rates = [[learning_rate(plan, step) for step in range(80)] for plan in (longer, extended)]
    assert rates[0] == rates[1]


def test_a_lengthened_run_keeps_the_learning_rates_it_had_before() -> None:
    schedule = {"kind": "cosine", "warmup_steps": 0}
    short = Plan(recipe({"name": "one", "steps": 40}, schedule=schedule))
    amended = Plan(
        recipe(
            {"name": "one", "steps": 40},
            schedule=schedule,
            amendments=[{"from_step": 30, "set": {"train.stages.0.steps": 80}}],
        )
    )
    long = Plan(recipe({"name": "one", "steps": 80}, schedule=schedule))
    for step in range(80):
        assert learning_rate(amended, step) == learning_rate(short if step < 30 else long, step)


def test_a_run_at_its_end_can_be_given_another_stage() -> None:
    stage = {"name": "three", "steps": 5, "mixture": {"b": 1}, "schedule": {"kind": "cosine", "warmup_steps": 0}}
    plan = Plan(recipe(amendments=[{"from_step": 20, "set": {"train.stages.2": stage}}]))
    assert cuts(plan)[-1] == (20, 25, "three")
    assert learning_rate(plan, 20) == 1.0


def test_a_stage_can_be_cut_short_where_it_stands() -> None:
    plan = Plan(recipe(amendments=[{"from_step": 4, "set": {"train.stages.0.steps": 4}}]))
    assert cuts(plan) == [(0, 4, "one"), (4, 14, "two")]


def test_a_stage_planned_in_tokens_can_be_amended_in_steps() -> None:
    plan = Plan(
        recipe({"name": "one", "tokens": 640}, amendments=[{"from_step": 2, "set": {"train.stages.0.steps": 12}}])
    )
    assert plan.total_steps == 12


def test_a_skip_leaves_the_number_of_steps_and_tokens_as_they_are() -> None:
    plan = Plan(recipe(amendments=[{"from_step": 3, "skip": 5}]))
    assert plan.total_steps == 20 and plan.tokens_before(20) == 20 * 64
    assert [(each.first, each.skip, each.window) for each in plan.segments] == [(0, 0, 0), (3, 5, 64), (10, 0, 0)]


def test_amendments_are_in_the_frozen_recipe(tmp_path: Any) -> None:
    whole = recipe(amendments=[{"from_step": 3, "skip": 5}, {"from_step": 4, "set": {"train.clip": 0.5}}])
    (tmp_path / "recipe.yaml").write_text(to_yaml(whole))
    assert load_recipe(tmp_path / "recipe.yaml") == whole


@pytest.mark.parametrize(
    ("amendment", "message"),
    [
        ({"from_step": 3}, "give exactly one of 'set' and 'skip'"),
        ({"from_step": 3, "skip": 2, "set": {"train.clip": 1}}, "give exactly one of 'set' and 'skip'"),
        ({"from_step": 3, "set": {"model.hidden": 8}}, "'model.hidden' cannot change during a run"),
        ({"from_step": 3, "set": {"seed": 8}}, "'seed' cannot change during a run"),
        ({"from_step": 21, "skip": 2}, r"amendments\.0\.from_step: there is no step 21, as the run ends after 20"),
        ({"from_step": 20, "skip": 2}, r"amendments\.0\.from_step: there is no step 20, as the run ends after 20"),
        (
            {"from_step": 12, "set": {"train.stages.0.steps": 20}},
            r"amendments\.0\.set: by step 12 stage 'one' has ended; amend a later one",
        ),
        (
            {"from_step": 3, "set": {"train.stages.0.set": {"train.clip": 2}}},
            r"by step 3 stage 'one' has begun, so its name and what it sets stay",
        ),
        ({"from_step": 3, "set": {"train.stages.5.steps": 2}}, r"amendments\.0\.set: train\.stages: has no entry 5"),
        ({"from_step": 3, "set": {"train.batch_warmup.scale_lr.x": 1}}, "scale_lr.x' cannot change during a run"),
        ({"from_step": 3, "set": {"train.batch_warmup.rungs.first.until": 1}}, "first.until' cannot change"),
        (
            {"from_step": 3, "set": {"train.schedule": 5, "train.schedule.kind": "cosine"}},
            r"amendments\.0\.set: train\.schedule\.kind: lies below a plain value or a list; check the key",
        ),
        ({"from_step": 3, "set": {"train.clip": -1}}, r"amendments\.0\.set: train\.clip: input should be greater"),
        ({"from_step": 3, "set": {"train.stages.1.mixture": {"c": 1}}}, "unknown source 'c' in stage 'two'"),
        ({"from_step": 3, "until_step": 3, "set": {"train.clip": 1}}, "must be later than from_step"),
        ({"from_step": 3, "until_step": 5, "skip": 2}, "a 'skip' happens once"),
        ({"from_step": 3, "until_step": 5, "set": {"train.stages.0.steps": 20}}, "changes the plan and cannot expire"),
        ({"from_step": 3, "set": {"train.stages.0.sequence": 24}}, "must be a multiple of the sequence"),
    ],
)
def test_amendments_that_cannot_be_are_refused(amendment: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(amendments=[amendment])


def test_an_amendment_past_the_end_is_refused_behind_one_that_reaches_past_it() -> None:
    passing = {"from_step": 5, "until_step": 25, "set": {"train.clip": 0.5}}
    assert Plan(recipe(amendments=[passing])).total_steps == 20
    with pytest.raises(ValidationError, match=r"amendments\.1\.from_step: there is no step 30, as the run"):
        recipe(amendments=[passing, {"from_step": 30, "skip": 1}])


@pytest.mark.parametrize("change", [{"rungs.0": {"until": 128}}, {"rungs.0.until": 128}], ids=["rung", "field"])
def test_a_rung_of_batch_warmup_can_be_amended(change: dict[str, Any]) -> None:
    settings = {f"train.batch_warmup.{key}": value for key, value in change.items()}
    rungs = [{"batch_tokens": 16, "until": 640}]
    plan = Plan(recipe(batch_warmup={"rungs": rungs}, amendments=[{"from_step": 4, "set": settings}]))
    assert [plan.at(step).batch_tokens for step in (0, 7, 8)] == [16, 16, 64]


def test_a_rung_that_is_no_multiple_of_the_sequence_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"batch_tokens \(12\) must be a multiple of the sequence \(8\)"):
        recipe(batch_warmup={"rungs": [{"batch_tokens": 12, "until": 100}]})
