"""One table from a task's kind to the function that does it, and the task itself, which can travel as JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smelt.corpus.stages.lines import lines_count_task, lines_edit_task
from smelt.corpus.stages.measure import measure_task
from smelt.corpus.stages.texts import Heard, texts_task
from smelt.corpus.stages.writing import write_task
from smelt.errors import InputError

TASKS: dict[str, Callable[[dict[str, Any], Heard], None]] = {
    "texts": texts_task,
    "line counts": lines_count_task,
    "lines": lines_edit_task,
    "measure": measure_task,
    "write": write_task,
}


@dataclass(frozen=True)
class Task:
    """What is done to one part of a source; `marks` are the files that say it is done."""

    kind: str
    source: str
    settings: dict[str, Any]
    marks: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether it need not be done again."""
        return all(Path(mark).is_file() for mark in self.marks)

    def perform(self, heard: Heard) -> None:
        """Do it in this process; `heard` is told of the documents so far. InputError names the source or a key."""
        try:
            TASKS[self.kind](self.settings, heard)
        except InputError as error:
            if str(error).startswith("corpus."):
                raise
            raise InputError(f"corpus.sources.{self.source}: {error}") from error

    def json(self) -> dict[str, Any]:
        """Itself, as what `Task(**value)` takes."""
        return asdict(self)
