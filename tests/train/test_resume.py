"""What a recipe may change when its run goes on: nothing that a step already taken depends on."""

from pathlib import Path
from typing import Any

import pytest

from smelt.errors import InputError
from smelt.recipe.schema import Recipe
from smelt.train.resume import check_resume, resume_step

RUN = Path("runs/x")
LONG = 5_000_000


def recipe(*amendments: dict[str, Any], steps: int = 20, **train: Any) -> Recipe:
    stages = [
        {"name": "one", "steps": 10, "mixture": {"a": 1}},
        {"name": "two", "steps": steps - 10, "mixture": {"a": 1}},
    ]
    section = {
        "sequence": 8,
        "batch_tokens": 64,
        "schedule": {"kind": "wsd", "warmup_steps": 2, "decay_steps": 5},
        "stages": stages,
        **train,
    }
    shards = {"shards": {"a": "a", "b": "b"}, "span": 64}
    return Recipe.model_validate({"name": "x", "dataset": shards, "train": section, "amendments": amendments})


def test_without_a_change_a_run_goes_on_from_any_checkpoint() -> None:
    assert resume_step(recipe(), recipe()) == 20
    check_resume(recipe(), recipe(), 20, RUN)


@pytest.mark.parametrize(
    ("amendment", "step"),
    [
        ({"from_step": 7, "skip": 3}, 7),
        ({"from_step": 7, "set": {"train.clip": 0.5}}, 7),
        ({"from_step": 7, "set": {"train.clip": 1.0}}, 20),  # changes nothing
        ({"from_step": 7, "set": {"train.stages.1.mixture": {"b": 1}}}, 10),
        ({"from_step": 7, "set": {"train.stages.1.steps": 90}}, 16),  # the first below the peak
        ({"from_step": 7, "set": {"train.stages.1.steps": 8}}, 14),
        ({"from_step": 7, "set": {"train.schedule": {"kind": "cosine"}}}, 7),
        ({"from_step": 7, "set": {"train.batch_tokens": 128}}, 7),
    ],
)
def test_an_amendment_rewinds_a_run_to_the_step_it_first_changes(amendment: dict[str, Any], step: int) -> None:
    """MARA-12: rewind-and-skip resumes before a spike."""
    wanted = recipe(amendment)
    assert resume_step(recipe(), wanted) == step
    check_resume(recipe(), wanted, min(step, 20), RUN)


def test_once_on_record_an_amendment_rewinds_no_more() -> None:
    amended = recipe({"from_step": 7, "skip": 3})
    assert resume_step(amended, amended) == 20


def test_amendments_are_only_ever_appended() -> None:
    one, two = {"from_step": 7, "skip": 3}, {"from_step": 5, "set": {"train.clip": 0.5}}
    assert resume_step(recipe(one), recipe(one, two)) == 5
    for wanted in (recipe(), recipe(two), recipe(two, one)):
        with pytest.raises(InputError, match=r"amendments\.0: the run has this amendment on record"):
            resume_step(recipe(one), wanted)


@pytest.mark.parametrize(
    ("key", "named"), [("train.stages.1.mixture", "unknown source 'c'"), ("train.stages.2.steps", "has no entry 2")]
)
def test_an_amendment_that_the_recipe_on_record_cannot_take_is_one_line(key: str, named: str) -> None:
    """Its source or stage is in the changed recipe alone."""
    change = {"from_step": 12, "set": {key: {"c": 1} if key.endswith("mixture") else 7}}
    stages = [{"name": str(each), "steps": 10, "mixture": {"a": 1}} for each in range(3)]
    shards = {"shards": {"a": "a", "b": "b", "c": "c"}, "span": 64}
    wanted = {**recipe(stages=stages).model_dump(), "dataset": shards, "amendments": [change]}
    with pytest.raises(InputError) as caught:
        resume_step(recipe(), Recipe.model_validate(wanted))
    assert str(caught.value).startswith("amendments: they do not fit the recipe that the run has on record (")
    assert named in str(caught.value)


def test_later_stages_may_change_without_an_amendment() -> None:
    changed = recipe(
        stages=[{"name": "one", "steps": 10, "mixture": {"a": 1}}, {"name": "2", "steps": 30, "mixture": {"b": 1}}]
    )
    check_resume(recipe(), changed, 10, RUN)
    with pytest.raises(InputError, match=r"step 11 of the 11 that were taken would have had another stage"):
        check_resume(recipe(), changed, 11, RUN)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"clip": 0.5}, "optimizer or other setting"),
        ({"optimizer": {"betas": [0.8, 0.9]}}, "optimizer or other setting"),
        ({"batch_tokens": 128}, "batch"),
        ({"schedule": {"kind": "cosine", "warmup_steps": 2}}, "learning rate"),
        ({"document_mask": False}, "optimizer or other setting"),
    ],
)
def test_a_change_of_steps_already_taken_is_refused_by_name(change: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError) as caught:
        check_resume(recipe(), recipe(**change), 12, RUN)
    assert f"train.{next(iter(change))}" in str(caught.value)
    assert f"would have had another {what}. Undo that" in str(caught.value)


def test_saving_and_logging_may_change_at_any_time() -> None:
    check_resume(recipe(), recipe(checkpoints={"every_steps": 3}, log_every_steps=1), 20, RUN)


def test_a_long_run_is_compared_without_going_through_its_steps() -> None:
    """OPT-08: five million steps, lengthened before the decay; where it parts is the first step below the peak."""
    lengthened = recipe({"from_step": 100, "set": {"train.stages.1.steps": 2 * LONG}}, steps=LONG)
    assert resume_step(recipe(steps=LONG), lengthened) == LONG - 4
