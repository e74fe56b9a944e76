"""Adds up what tasks say of their progress."""

from collections import defaultdict
from collections.abc import Callable

from smelt.corpus.stages.tasks import Task

Progress = Callable[[str, int], None]
"""Is told of what is done now, and with how many documents so far."""


class Hearing:
    """Tells `progress` how many documents of a source a stage has done, over all its tasks."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._documents: dict[str, dict[int, int]] = defaultdict(dict)

    def __call__(self, task: Task, documents: int, done: bool) -> None:
        stage = f"{task.source}: {task.kind}"
        counted = self._documents[stage]
        counted[task.settings["number"]] = max(documents, counted.get(task.settings["number"], 0))
        if self._progress:
            self._progress(stage, sum(counted.values()))
