"""The data order under all that a plan can hold: growing batches, skips, amendments, and a trunk's past."""

from typing import Any

import numpy as np
import pytest

from smelt.dataset.order import DataOrder
from smelt.errors import InputError
from smelt.recipe.branch import resolve_from
from smelt.recipe.schema import Recipe

COUNTS = {"a": 5000, "b": 700}
Window = tuple[int, int, int]


def windows(order: DataOrder, *steps: range) -> list[Window]:
    """(source, first token, epoch) of the windows of some steps, in order."""
    drawn = [order.windows(step) for part in steps for step in part]
    return [row for each in drawn for row in zip(*(part.tolist() for part in each[:3]), strict=True)]


def stages(*steps: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"name": f"stage-{index}", "steps": count, "mixture": {"a": 3, "b": 1}, **fields}
        for index, count in enumerate(steps)
    ]


def with_amendments(recipe: Recipe, *amendments: dict[str, Any]) -> DataOrder:
    return DataOrder(Recipe.model_validate({**recipe.model_dump(), "amendments": amendments}), COUNTS)


def test_growing_batches_read_the_same_windows_in_the_same_order(make_recipe: Any) -> None:
    """OPT-14: each sample is seen once and counted once, whatever the batches that it comes in."""
    warmup = {"rungs": [{"batch_tokens": 16, "until": 100}, {"batch_tokens": 32, "until": 300}]}
    growing = DataOrder(make_recipe(stages(40), batch_warmup=warmup), COUNTS)
    plain = DataOrder(make_recipe(stages(40)), COUNTS)
    seen = windows(growing, range(40))
    assert seen == windows(plain, range(40))[: len(seen)]
    for step in (3, 7, 9, 13, 30):
        read = growing.consumed(step)
        assert sum(source["tokens"] for source in read.values()) == growing.plan.tokens_before(step)
        counted = np.bincount([row[0] for row in windows(growing, range(step))], minlength=2)
        assert [source["windows"] for source in read.values()] == counted.tolist()


def test_a_skip_passes_over_batches_and_leaves_later_order_intact(make_recipe: Any) -> None:
    """MARA-12: rewind-and-skip drops a chosen range, leaving later order intact."""
    recipe = make_recipe(stages(60))
    plain = DataOrder(recipe, COUNTS)
    skipping = with_amendments(recipe, {"from_step": 20, "skip": 7}, {"from_step": 30, "skip": 2})
    assert windows(skipping, range(20)) == windows(plain, range(20))
    assert windows(skipping, range(20, 30)) == windows(plain, range(27, 37))
    assert windows(skipping, range(30, 51)) == windows(plain, range(39, 60))
    read = skipping.consumed(40)
    assert sum(source["tokens"] for source in read.values()) == 40 * 64
    assert sum(source["skipped"] for source in read.values()) >= 9 * 64
    without = [row for row in windows(plain, range(49)) if row not in windows(plain, range(20, 27), range(37, 39))]
    counted = np.bincount([row[0] for row in without], minlength=2)
    assert [source["windows"] for source in read.values()] == counted.tolist()


def test_a_later_stage_goes_on_behind_what_was_skipped(make_recipe: Any) -> None:
    recipe = make_recipe(stages(30, 30))
    skipping = with_amendments(recipe, {"from_step": 20, "skip": 10})
    longer = DataOrder(make_recipe(stages(40, 30)), COUNTS)
    assert windows(skipping, range(30, 60)) == windows(longer, range(40, 70))


def test_an_amendment_that_changes_no_data_changes_no_batch(make_recipe: Any) -> None:
    recipe = make_recipe(stages(60))
    amended = with_amendments(
        recipe,
        {"from_step": 13, "until_step": 29, "set": {"train.clip": 0.1}},
        {"from_step": 17, "set": {"train.optimizer.lr": 1e-5}},
    )
    assert windows(amended, range(60)) == windows(DataOrder(recipe, COUNTS), range(60))


def test_a_run_extended_by_an_amendment_has_the_batches_of_one_planned_longer(make_recipe: Any) -> None:
    """OPT-08, the data's side."""
    extended = with_amendments(make_recipe(stages(20)), {"from_step": 15, "set": {"train.stages.0.steps": 60}})
    assert windows(extended, range(60)) == windows(DataOrder(make_recipe(stages(60)), COUNTS), range(60))


def test_an_amended_mixture_goes_on_with_the_next_windows_of_each_source(make_recipe: Any) -> None:
    amended = with_amendments(make_recipe(stages(40)), {"from_step": 10, "set": {"train.stages.0.mixture": {"b": 1}}})
    staged = stages(10, 30)
    staged[1]["mixture"] = {"b": 1}
    assert windows(amended, range(40)) == windows(DataOrder(make_recipe(staged), COUNTS), range(40))


def test_a_branch_goes_on_with_the_data_of_its_trunk(make_recipe: Any) -> None:
    """OPT-08: a decay branch reads on where the trunk stood, cursors and all; the trunk's part is its own past."""
    trunk = make_recipe(stages(20, 100))
    start = {"from": {"run": "trunk", "step": 50}}
    branch = DataOrder(resolve_from(make_recipe(stages(10), **start), trunk), COUNTS)
    planned = DataOrder(make_recipe(stages(20, 30, 10)), COUNTS)
    assert windows(branch, range(60)) == windows(planned, range(60))
    assert branch.consumed(55) == planned.consumed(55)
    named = stages(10)
    named[0]["name"] = "stage-1"
    same = DataOrder(resolve_from(make_recipe(named, **start), trunk), COUNTS)
    assert windows(same, range(60)) == windows(DataOrder(trunk, COUNTS), range(60))


def test_a_branch_of_an_amended_trunk_has_its_skips_in_its_past(make_recipe: Any) -> None:
    whole = Recipe.model_validate(
        {
            **make_recipe(stages(60), batch_warmup={"rungs": [{"batch_tokens": 16, "until": 100}]}).model_dump(),
            "amendments": [{"from_step": 12, "skip": 5}],
        }
    )
    named = stages(30)
    branch = DataOrder(resolve_from(make_recipe(named, **{"from": {"run": "t", "step": 30}}), whole), COUNTS)
    assert windows(branch, range(60)) == windows(DataOrder(whole, COUNTS), range(60))
    assert branch.consumed(45) == DataOrder(whole, COUNTS).consumed(45)


def test_a_branch_may_read_a_source_that_its_trunk_had_not(make_recipe: Any) -> None:
    """DATA-09: 40 % of the stage's mixture and 60 % of a candidate, from a checkpoint of the trunk."""
    trunk = make_recipe(stages(40))
    stage = {"name": "anneal", "steps": 50, "mixture": {"a": 0.3, "b": 0.1, "c": 0.6}}
    recipe = make_recipe([stage], "abc", **{"from": {"run": "trunk", "step": 30}})
    branch = DataOrder(resolve_from(recipe, trunk), {**COUNTS, "c": 900})
    assert windows(branch, range(30)) == windows(DataOrder(trunk, COUNTS), range(30))
    shares = np.bincount([row[0] for row in windows(branch, range(30, 80))]) / 400
    assert shares.tolist() == [0.3, 0.1, 0.6]


def test_without_the_trunk_there_is_no_data_order(make_recipe: Any) -> None:
    recipe = make_recipe(stages(10), **{"from": {"run": "trunk", "step": 50}})
    with pytest.raises(InputError, match=r"train\.from: what run 'trunk' trained on is not known here"):
        DataOrder(recipe, COUNTS)
