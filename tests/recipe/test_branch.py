"""Runs that go on from a step of another: its past becomes theirs, whole or with another end."""

from pathlib import Path
from typing import Any

import pytest

from smelt.errors import InputError
from smelt.optim.schedules import learning_rate
from smelt.recipe.branch import resolve_from
from smelt.recipe.dump import to_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe

MIDTRAINING = Path(__file__).parents[2] / "recipes" / "midtraining"
MODEL = {"hidden": 16, "layers": 2, "attention": {"heads": 2, "kv_heads": 1}, "feedforward": {"width": 32}}
WSD = {"kind": "wsd", "warmup_steps": 3, "decay_steps": 4}


def recipe(*stages: dict[str, Any], seed: int = 0, model: Any = MODEL, names: str = "ab", **train: Any) -> Recipe:
    amendments = train.pop("amendments", ())
    return Recipe.model_validate(
        {
            "name": "branch",
            "seed": seed,
            "dataset": {"shards": {name: name for name in names}, "span": 64},
            "model": model,
            "train": {
                "sequence": 8,
                "batch_tokens": 64,
                "optimizer": {"lr": 1.0},
                "schedule": WSD,
                "stages": [{"mixture": {"a": 1}, **stage} for stage in stages],
                **train,
            },
            "amendments": amendments,
        }
    )


def branch(trunk: Recipe, step: int, *stages: dict[str, Any], **train: Any) -> Recipe:
    return resolve_from(recipe(*stages, **{"from": {"run": "trunk", "step": step}, **train}), trunk)


TRUNK = recipe({"name": "one", "steps": 10}, {"name": "two", "steps": 90, "mixture": {"a": 1, "b": 1}})


def test_a_decay_branch_is_the_trunk_planned_with_an_early_end() -> None:
    """OPT-08: steps, tokens and learning rates of a decay from step 30 are those of a run of 36 steps."""
    decayed = Plan(branch(TRUNK, 30, {"name": "decay", "steps": 6}))
    short = Plan(recipe({"name": "one", "steps": 10}, {"name": "two", "steps": 20}, {"name": "decay", "steps": 6}))
    assert (decayed.first, decayed.total_steps) == (30, 36)
    assert [decayed.tokens_before(step) for step in range(37)] == [short.tokens_before(step) for step in range(37)]
    assert [learning_rate(decayed, step) for step in range(30, 36)] == [
        learning_rate(short, step) for step in range(30, 36)
    ]
    assert learning_rate(decayed, 35) == pytest.approx(0.25)


def test_a_branch_with_its_own_schedule_begins_it_afresh() -> None:
    """OPT-13, the schedule's side: the learning rate of a branch with another batch is warmed up again."""
    again = {"kind": "wsd", "warmup_steps": 4, "decay_fraction": 0}
    plan = Plan(branch(TRUNK, 30, {"name": "larger", "steps": 8, "schedule": again}, batch_tokens=256))
    assert [learning_rate(plan, step) for step in range(30, 38)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert plan.tokens_before(38) == 30 * 64 + 8 * 256


def test_the_past_is_in_the_frozen_recipe(tmp_path: Path) -> None:
    whole = branch(TRUNK, 30, {"name": "decay", "steps": 6})
    (tmp_path / "recipe.yaml").write_text(to_yaml(whole))
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert loaded == whole
    assert [(each.name, each.steps) for each in loaded.train.trunk.past] == [("one", 10), ("two", 20)]


def test_a_branch_of_a_branch_has_both_pasts_and_what_they_set() -> None:
    """What stages and amendments of a trunk gave the model stays with those that go on from it."""
    amended = recipe(
        {"name": "one", "steps": 10},
        {"name": "two", "steps": 90, "set": {"model.position.theta": 7}},
        amendments=[
            {"from_step": 20, "skip": 3},
            {"from_step": 25, "set": {"train.batch_tokens": 128, "model.attention.window": 4}},
        ],
    )
    first = branch(amended, 30, {"name": "three", "steps": 10})
    second = branch(first, 35, {"name": "four", "steps": 10})
    plan = Plan(second)
    stretches = [(each.first, each.end, each.stage, each.name, each.skip, each.batch_tokens) for each in plan.segments]
    assert stretches == [
        (0, 10, -3, "one", 0, 64),
        (10, 20, -2, "two", 0, 64),
        (20, 25, -2, "two", 3, 64),
        (25, 30, -2, "two", 0, 128),
        (30, 35, -1, "three", 0, 64),
        (35, 45, 0, "four", 0, 64),
    ]
    models = [each.model for each in plan.segments]
    assert [model.position.theta for model in models] == [50_000, 7, 7, 7, 7, 7]
    assert [model.attention.window for model in models] == [None, None, None, 4, 4, 4]
    assert Plan(amended).at(26).model == plan.at(26).model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "run 'trunk' differs in seed: 0 -> 1"),
        ({"model": {**MODEL, "hidden": 32}}, "differs in model.hidden: 16 -> 32"),
        ({"names": "ba"}, "differs in dataset.shards.0: a -> b"),
        ({"from": {"run": "trunk", "step": 101}}, "train.from.step: run 'trunk' has steps 1 to 100, not 101"),
    ],
)
def test_a_branch_that_does_not_fit_its_trunk_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        branch(TRUNK, 30, {"name": "decay", "steps": 6}, **changes)
    assert message in str(caught.value)


def test_a_branch_may_have_sources_that_its_trunk_had_not() -> None:
    """DATA-09: an annealing branch mixes a candidate in."""
    stage = {"name": "anneal", "steps": 6, "mixture": {"a": 0.4, "c": 0.6}}
    annealed = branch(TRUNK, 30, stage, names="abc")
    assert Plan(annealed).at(30).mixture == {"a": 0.4, "c": 0.6}


def test_an_amendment_of_the_past_is_refused() -> None:
    whole = branch(TRUNK, 30, {"name": "decay", "steps": 6})
    data = {**whole.model_dump(), "amendments": [{"from_step": 29, "skip": 1}]}
    with pytest.raises(ValueError, match=r"amendments\.0\.from_step: 29 lies before this run's own first step, 30"):
        Recipe.model_validate(data)


def test_smollm3s_extension_and_reasoning_go_on_one_from_another() -> None:
    """MID-01: 4k, 32k, 64k with theta 50k, 2M, 5M; 47.2B and 51.9B tokens at the same batch; each with 1,000 steps of
    warmup to 2e-5, a cosine to 0 and a fresh optimizer. MID-07: five epochs in ChatML at 2e-5, batch 128, 32k, saved
    every quarter of an epoch."""
    trunk = load_recipe(MIDTRAINING.parent / "schedules" / "wsd-smollm3.yaml")
    seen = []
    for name in ("long-32k", "long-64k", "reasoning"):
        trunk = resolve_from(load_recipe(MIDTRAINING / f"{name}.yaml"), trunk)
        plan = Plan(trunk)
        own = plan.at(plan.first)
        tokens = plan.tokens_before(plan.total_steps) - plan.tokens_before(plan.first)
        seen.append((own.sequence, own.model.position.theta, own.windows, round(tokens / 1e9, 1)))
        rates = [learning_rate(plan, plan.first + step) for step in (0, 999)]
        assert rates == pytest.approx([2e-8, 2e-5])
        assert learning_rate(plan, plan.total_steps - 1) < 1e-12
        assert trunk.train.trunk.optimizer == "reset"
    assert seen == [(32_768, 2e6, 72, 47.2), (65_536, 5e6, 36, 51.9), (32_768, 5e6, 128, 176.0)]
    saved = trunk.train.checkpoints.every_steps * plan.at(plan.first).batch_tokens
    assert saved == pytest.approx((18.7e9 + 16.5e9) / 4, rel=1e-3)
