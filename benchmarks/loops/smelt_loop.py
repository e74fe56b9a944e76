"""Ours: `smelt train` as it is, with a hook that keeps its turn. Arguments: project, recipe, overrides."""

import sys
from pathlib import Path
from typing import Any

from pace import Pace

from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.recipe.load import load_recipe
from smelt.train.loop import Hook, Training


class Turns(Hook):
    """Waits before every step."""

    def __init__(self) -> None:
        self._pace = Pace()

    def started(self, training: Training) -> None:
        self._pace.step()

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        self._pace.step()


if __name__ == "__main__":
    project, recipe = Path(sys.argv[1]), load_recipe(Path(sys.argv[2]), sys.argv[3:])
    steps = Steps(project / "runs" / recipe.name / "timings.json", lambda text: None)
    pretrain(recipe, project, resume=False, steps=steps, hooks=[Turns()])
