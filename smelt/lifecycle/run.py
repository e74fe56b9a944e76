"""The whole lifecycle of a recipe: data, tokenizer, pretraining, export, post-training, evaluation, report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from smelt.lifecycle.posttraining import check_alone, export_base, run_stages
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.recipe.schema import Recipe
from smelt.report.html import write_report
from smelt.train.loop import Hook


def run(
    recipe: Recipe,
    project: Path = Path("."),
    *,
    hooks: Sequence[Hook] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Do every step that is not done yet and return the run directory, `report.html` in it.

    A step is done when the fingerprint of its inputs is on record and its output is there. Training goes on from its
    newest whole checkpoint. Raises Stopped when asked to stop, InputError for post-training under torchrun.
    """
    if recipe.posttrain is not None:
        check_alone()
    folder = project / "runs" / recipe.name
    steps = Steps(folder / "timings.json", say)
    if not pretrain(recipe, project, resume=True, steps=steps, hooks=hooks, say=say):
        return folder
    export_base(recipe, folder, steps)
    if recipe.posttrain is not None:
        run_stages(recipe, folder, steps)
    if steps.ran or not (folder / "report.html").is_file():
        write_report(folder)
    return folder


def train(recipe: Recipe, project: Path = Path("."), *, resume: bool = False) -> Path:
    """Pretrain the recipe's model, building what it reads first where it is missing; returns the run directory."""
    folder = project / "runs" / recipe.name
    pretrain(recipe, project, resume=resume, steps=Steps(folder / "timings.json", lambda text: None))
    return folder
