"""`smelt train`: one pretraining run."""

from typing import Annotated

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load, say
from smelt.infra.refusal import under_agent


@under_agent()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    supervise: Annotated[bool, typer.Option("--supervise", help="Start again after a crash.")] = False,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Train a recipe's model, building its corpus, tokenizer and shards first where they are missing.

    Example: smelt train recipes/demo.yaml train.optimizer.lr=1e-3
    """
    loaded = load(recipe, overrides)
    if supervise:
        from smelt.infra.job import Job
        from smelt.marathon.supervise import keep_going

        job = Job(loaded, recipe, tuple(overrides or ()), project)
        raise typer.Exit(keep_going(job, resume, ["--json"] if as_json else [], say))
    from smelt.cli.progress import TrainingProgress
    from smelt.lifecycle.pretrain import pretrain
    from smelt.lifecycle.steps import Steps
    from smelt.recipe.plan import Plan

    folder = project / "runs" / loaded.name
    steps = Steps(folder / "timings.json", say)
    with TrainingProgress() as progress:
        pretrain(loaded, project, resume=resume, steps=steps, hooks=[progress], say=say)
    total = Plan(loaded).total_steps
    answer(as_json, {"run": folder, "step": total}, f"{folder}: {total:,} steps done")
