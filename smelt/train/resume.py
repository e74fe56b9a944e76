"""Starting a run directory, or going on in one: the frozen recipe decides what may still change."""

from pathlib import Path

from smelt.errors import InputError
from smelt.optim.schedules import learning_rate
from smelt.recipe.dump import Change, diff
from smelt.recipe.schema import Recipe

_FREE = ("infra.", "evals.", "posttrain", "train.checkpoints.", "train.log_every_steps")


def check_resume(frozen: Recipe, wanted: Recipe, step: int, run: Path) -> None:
    """Refuse to go on at finished step `step` with a recipe that would have changed the steps already taken.

    Free to change: `infra`, `evals`, `posttrain`, saving and logging, and stages that have not begun, as long as the
    learning rate of the steps taken stays the same.
    """
    refused = [change for change in diff(frozen, wanted) if not _free(change, frozen, step)]
    if refused:
        raise InputError(
            f"{run}: cannot resume with a changed recipe: {'; '.join(map(str, refused[:3]))}"
            f"{f' and {len(refused) - 3} more' if len(refused) > 3 else ''}. Undo that, or give the run another name"
        )


def _free(change: Change, frozen: Recipe, step: int) -> bool:
    if change.key.startswith(_FREE):
        return True
    if frozen.train is None or not change.key.startswith("train.stages."):
        return False
    stage = int(change.key.split(".")[2])
    return stage > frozen.train.stage_at(max(0, step - 1))[0] if stage < len(frozen.train.stages) else True


def check_rates(frozen: Recipe, wanted: Recipe, step: int, run: Path) -> None:
    """Refuse a change of later stages that alters the learning rate of any step already taken."""
    old, new = frozen.section("train"), wanted.section("train")
    for taken in range(step):
        if learning_rate(old, taken) != learning_rate(new, taken):
            raise InputError(
                f"{run}: cannot resume: the changed stages give step {taken} the learning rate "
                f"{learning_rate(new, taken):.3g} where it had {learning_rate(old, taken):.3g}; give the new stage its "
                "own schedule"
            )
