"""The last stage: the documents of a part that nothing dropped are written to their splits, and drops are sampled."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smelt.corpus.document import Document
from smelt.corpus.splits import SPLITS, split_file, write_splits
from smelt.corpus.stages.batches import batches
from smelt.corpus.stages.folder import part_file, write_mark, write_rows
from smelt.corpus.stages.measure import read_scores
from smelt.corpus.stages.sample import Samples
from smelt.corpus.stages.texts import Heard
from smelt.files import disk_errors, sync

SHOWN = 2_000


def write_task(settings: dict[str, Any], heard: Heard) -> None:
    """Write part `number` of `texts` to `folder`: its splits, samples of its drops, and rows that others `show`.

    `codes` beside it say of each document which of `steps` dropped it, counted from 1; 0 keeps it.
    """
    part = _Part(settings)
    folder, number, fraction = part.folder, part.number, settings["fraction"]
    out = part_folder(folder, number)
    with disk_errors(out):
        counts = write_splits(out, part.kept(heard), lambda share: share < fraction)
        for split in SPLITS:
            sync(split_file(out, split))
    write_rows(part_file(folder, number, ".drops.jsonl"), part.samples.rows())
    write_rows(part_file(folder, number, ".shown.jsonl"), part.shown)
    write_mark(folder, number, counts)


def part_folder(folder: Path, number: int) -> Path:
    """Where the splits of a part lie."""
    return folder / f"{number:05d}"


class _Part:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.folder, self.number = Path(settings["folder"]), settings["number"]
        self._texts, self._steps, self._show = Path(settings["texts"]), settings["steps"], set(settings["show"])
        self._codes = np.load(part_file(self.folder, self.number, ".codes.npy"), allow_pickle=False)
        self._scores: Callable[[int], dict[str, Any]] = _scores_of(settings["scores"], self.number)
        self.samples = Samples()
        self.shown: list[dict[str, Any]] = []

    def kept(self, heard: Heard) -> Iterator[Document]:
        """The documents that stay, in order."""
        row = 0
        for batch in batches(self._texts, self.number):
            for row, document in enumerate(batch, row):  # noqa: B020
                if row in self._show:
                    self.shown.append({"row": row, "id": document.id, "text": document.text[:SHOWN]})
                if not self._codes[row]:
                    yield document
                else:
                    self._sample(row, document)
            row += 1
            heard(row)

    def _sample(self, row: int, document: Document) -> None:
        reason = self._steps[self._codes[row] - 1]
        facts = {"reason": reason, "id": document.id, "text": document.text[:SHOWN]}
        self.samples.add(reason, document.id, lambda: {**facts, "scores": self._scores(row)})


def _scores_of(folders: dict[str, str], number: int) -> Callable[[int], dict[str, Any]]:
    """A function from a row to all its scores, by "filter.column"."""
    columns = {
        f"{name}.{column}": values
        for name, folder in folders.items()
        for column, values in read_scores(Path(folder), number).items()
    }
    return lambda row: {name: _plain(values[row]) for name, values in columns.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
