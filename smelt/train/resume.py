"""Going on in a run directory: which steps a changed recipe would have taken otherwise, and whether that is allowed."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from smelt.errors import InputError
from smelt.optim.schedules import learning_rate, leaves_peak
from smelt.recipe.branch import with_amendments
from smelt.recipe.dump import Change, diff
from smelt.recipe.plan import Plan, Segment
from smelt.recipe.schema import Recipe

_FREE = ("infra.", "evals.", "posttrain", "dataset.classes", "train.checkpoints.", "train.log_every_steps")
_PLANNED = ("train.", "amendments.")
_NOT_PART_OF_A_STEP = {
    "trunk",
    "sequence",
    "packing",
    "batch_tokens",
    "batch_warmup",
    "schedule",
    "stages",
    "caps",
    "adapt",
    "checkpoints",
    "log_every_steps",
}


class Difference(NamedTuple):
    """The first step (from 0) that two plans take differently, and in what; `what` is "" where there is none."""

    step: int
    what: str


def first_difference(a: Plan, b: Plan) -> Difference:
    """Where two plans part; plans that never do part where the shorter one ends."""
    end = min(a.total_steps, b.total_steps)
    bounds = sorted({min(step, end) for plan in (a, b) for each in plan.segments for step in (each.first, each.end)})
    for first, last in pairwise(bounds):
        one, other = a.at(first), b.at(first)
        for name, value in _facts(one, first).items():
            if value != _facts(other, first)[name]:
                return Difference(first, name)
        step = _first_other_rate(a, b, range(first, last))
        if step is not None:
            return Difference(step, "learning rate")
    return Difference(end, "" if a.total_steps == b.total_steps else "length")


def resume_step(frozen: Recipe, wanted: Recipe) -> int:
    """The latest step that a checkpoint may have finished for `wanted` to go on from it, when all that it does is to
    append amendments to the run's `frozen` recipe: an amendment that begins earlier rewinds the run."""
    _check_appended(frozen, wanted)
    return first_difference(Plan(frozen), Plan(_amended(frozen, wanted))).step


def check_resume(frozen: Recipe, wanted: Recipe, step: int, run: Path) -> None:
    """Refuse to go on at finished step `step` with a recipe that would have changed the steps already taken.

    Free to change: `infra`, `evals`, `posttrain`, saving and logging, and what no step taken depends on, such as stages
    that have not begun. Amendments may be appended.
    """
    _check_appended(frozen, wanted)
    amended = _amended(frozen, wanted)
    changes = [change for change in diff(amended, wanted) if not change.key.startswith(_FREE)]
    refused = [change for change in changes if not _planned(change)]
    if refused:
        raise InputError(f"{run}: {_cannot(refused)}. Undo that, or give the run another name")
    differs = first_difference(Plan(amended), Plan(wanted))
    if differs.step < step:
        raise InputError(
            f"{run}: {_cannot(changes)}: step {differs.step + 1} of the {step} that were taken would have had another "
            f"{differs.what}. Undo that, amend the run from a later step, or give it another name"
        )


def _facts(segment: Segment, step: int) -> dict[str, Any]:
    """What a step is made of, besides its learning rate."""
    return {
        "stage": segment.name,
        "mixture": segment.mixture,
        "sequence": segment.sequence,
        "packing": segment.packing,
        "batch": segment.batch_tokens,
        "place in the data": segment.skip if segment.first == step else 0,
        "model": segment.model,
        "optimizer or other setting": segment.train.model_dump(exclude=_NOT_PART_OF_A_STEP),
    }


def _first_other_rate(a: Plan, b: Plan, steps: range) -> int | None:
    one, other = a.at(steps.start), b.at(steps.start)
    if _timing(one) == _timing(other):
        if one.clock == other.clock:
            return None
        alike = min(leaves_peak(one.clock), leaves_peak(other.clock)) - (one.elapsed - one.first)
        steps = range(max(steps.start, alike), steps.stop)
    return next((step for step in steps if learning_rate(a, step) != learning_rate(b, step)), None)


def _timing(segment: Segment) -> tuple[float, ...]:
    """What tells the learning rates of a segment up to where the clock leaves the peak."""
    return segment.elapsed - segment.first, segment.clock.schedule.warmup_steps, segment.lr_factor


def _planned(change: Change) -> bool:
    """Whether the plans tell what a change does."""
    return change.key.startswith(_PLANNED) and not change.key.startswith("train.from")


def _check_appended(frozen: Recipe, wanted: Recipe) -> None:
    for index, before in enumerate(frozen.amendments):
        if wanted.amendments[index : index + 1] != (before,):
            raise InputError(
                f"amendments.{index}: the run has this amendment on record, and they are only ever appended; restore "
                "it, and add another one to undo what it does"
            )


def _amended(frozen: Recipe, wanted: Recipe) -> Recipe:
    if wanted.amendments == frozen.amendments:
        return frozen
    return with_amendments(frozen, wanted.amendments, "the recipe that the run has on record")


def _cannot(changes: Iterable[Change]) -> str:
    first, *more = [[*changes][:3], *[*changes][3:]]
    return f"cannot resume with a changed recipe: {'; '.join(map(str, first))}" + (
        f" and {len(more)} more" if more else ""
    )
