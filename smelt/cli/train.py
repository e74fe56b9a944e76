"""`smelt train`: one pretraining run."""

from typing import Annotated

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load, say


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Train a recipe's model, building its corpus, tokenizer and shards first where they are missing.

    Example: smelt train recipes/demo.yaml train.optimizer.lr=1e-3
    """
    loaded = load(recipe, overrides)
    from smelt.cli.progress import TrainingProgress
    from smelt.lifecycle.pretrain import pretrain
    from smelt.lifecycle.steps import Steps

    folder = project / "runs" / loaded.name
    steps = Steps(folder / "timings.json", say)
    pretrain(loaded, project, resume=resume, steps=steps, hooks=[TrainingProgress()], say=say)
    total = loaded.section("train").total_steps
    answer(as_json, {"run": folder, "step": total}, f"{folder}: {total:,} steps done")
