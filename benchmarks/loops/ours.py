"""Our whole run, metrics and all: `ours.py RECIPE PROJECT [OVERRIDE]...`."""

import sys
from pathlib import Path
from typing import Any

from gate import Gate

from smelt.dataset.shards import open_sources
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import train_run
from smelt.recipe.load import load_recipe
from smelt.train.loop import Hook


class Gated(Hook):
    def __init__(self) -> None:
        self.gate = Gate()

    def started(self, training: Any) -> None:
        self.gate.open()

    def stepped(self, training: Any, row: dict[str, Any] | None) -> None:
        self.gate.step()


def main(recipe: str, project: str, *overrides: str) -> None:
    loaded = load_recipe(recipe, list(overrides))
    ready = prepare(loaded, Path(project))
    sources = open_sources(loaded, ready.shards, ready.tokenizer)
    train_run(loaded, Path(project) / "runs" / loaded.name, ready.tokenizer, sources, hooks=[Gated()])


main(*sys.argv[1:])
