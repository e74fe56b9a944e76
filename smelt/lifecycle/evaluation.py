"""Measuring one checkpoint in a process of its own: `python -m smelt.lifecycle.evaluation PROJECT RUN CHECKPOINT`."""

import sys
from collections.abc import Mapping
from pathlib import Path

from smelt.dataset.shards import Shards, open_split
from smelt.lifecycle.artifacts import Artifacts, prepare
from smelt.marathon.evaluate import Measure
from smelt.model.load import load_model
from smelt.recipe.load import load_recipe
from smelt.train.checkpoints import step_of


def command(project: Path, run: Path, checkpoint: Path) -> list[str]:
    """What measures `checkpoint`."""
    return [sys.executable, "-m", __name__, *map(str, (project, run, checkpoint))]


def validation_shards(ready: Artifacts) -> Mapping[str, Shards]:
    """The validation split of each source that was built from text."""
    return open_split(ready.shards, "validation", ready.tokenizer) if ready.shards else {}


def main(project: Path, run: Path, checkpoint: Path) -> None:
    """Write what is measured of `checkpoint` to the run's `evals/`."""
    recipe = load_recipe(run / "recipe.yaml")
    ready = prepare(recipe, project)
    measure = Measure(recipe, ready.sources(recipe), validation_shards(ready))
    measure(run, step_of(checkpoint), load_model(checkpoint), ready.tokenizer)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
