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
    from smelt.cli.progress import TrainingProgress, announced
    from smelt.lifecycle.pretrain import pretrain

    outcome = pretrain(
        load(recipe, overrides), project, resume=resume, step=announced, hooks=[TrainingProgress()], say=say
    )
    facts = {"run": outcome.run, "step": outcome.step, "done": outcome.done}
    answer(as_json, facts, f"{outcome.run}: {outcome.step} steps done")
