"""`smelt run`: the whole lifecycle."""

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load, say, speaks


def run(recipe: RecipeFile, overrides: Overrides = None, project: Project = HERE, as_json: Json = False) -> None:
    """Everything a recipe says, step by step: data, tokenizer, training, post-training, evaluation, report.

    Finished steps are skipped; a run that was stopped goes on where it was.

    Example: smelt run recipes/demo.yaml
    """
    loaded = load(recipe, overrides)
    from smelt.cli.progress import TrainingProgress
    from smelt.lifecycle.run import run as lifecycle
    from smelt.report.summary import text

    with TrainingProgress() as progress:
        folder = lifecycle(loaded, project, hooks=[progress], say=say)
    result = {"run": folder, "report": folder / "report.html"}
    if speaks():
        answer(as_json, result, f"\n{text(folder)}\n\nreport: {folder / 'report.html'}")
