"""Lines that many documents share: counted part by part in bounded memory, merged, and removed from all but the first.

A line is compared without the blanks around it; one that is repeated within a document counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.duplicates.line_hashes import line_hashes
from smelt.recipe.sections.duplicates import Lines

COUNTED = np.dtype([("line", "<u8"), ("documents", "<u4"), ("first", "<u4")])
REPEATED = np.dtype([("line", "<u8"), ("part", "<u4"), ("document", "<u4")])
RUN = 1 << 20  # rows sorted together; all but the last run of a file have this many
_RANGE = 1 << 21  # rows merged together

Table = NDArray[np.void]


def compared(section: Lines, sources: Sequence[str]) -> list[list[str]]:
    """Which of `sources` have their lines counted together: none, one or many lists; a source in none is left alone."""
    chosen = [name for name in sources if section.sources is None or name in section.sources]
    if section.across:
        return [chosen] if chosen else []
    return [[name] for name in chosen]


class LineCounts:
    """Counts the lines of one part into `file`: rows `COUNTED`, in runs of `RUN` rows that are sorted by line.

    Call `add` with the texts of the part in order, then `close`.
    """

    def __init__(self, section: Lines, file: Path) -> None:
        self._section, self._out = section, file.open("wb")
        self._sorted = np.empty(0, COUNTED)
        self._new: list[Table] = []
        self._documents = 0

    def add(self, texts: Sequence[str]) -> None:
        hashes, ends = line_hashes(texts, self._section.min_characters)
        rows = np.empty(len(hashes), COUNTED)
        rows["line"], rows["documents"] = hashes, 1
        rows["first"] = self._documents + np.repeat(np.arange(len(texts)), np.diff(ends, prepend=0))
        self._new.append(rows[hashes != 0])
        self._documents += len(texts)
        if sum(map(len, self._new)) >= RUN // 4:
            self._settle()
            while len(self._sorted) >= RUN:
                self._write(RUN)

    def close(self) -> None:
        self._settle()
        while len(self._sorted):
            self._write(RUN)
        self._out.close()

    def _settle(self) -> None:
        new = _by_line(np.concatenate([np.empty(0, COUNTED), *self._new]))
        once = new[_starts(new, "line", "first")]
        rows = _by_line(np.concatenate([self._sorted, once]))
        starts = _starts(rows, "line")
        self._sorted, self._new = rows[starts], []
        self._sorted["documents"] = _sums(rows["documents"], starts)

    def _write(self, count: int) -> None:
        self._out.write(self._sorted[:count].tobytes())
        self._sorted = self._sorted[count:].copy()


def repeated(section: Lines, files: Sequence[Path]) -> Table:
    """Lines in more than `max_documents` documents of all parts: `REPEATED` [lines], sorted by line.

    `files` are the counts of the parts, in order; `part` and `document` say where the line stays.
    """
    runs = [run for part, file in enumerate(files) for run in _runs(part, file)]
    ranges = max(1, -(-sum(run.rows for run in runs) // _RANGE))
    edges = np.array([(index << 64) // ranges for index in range(1, ranges)], np.uint64)
    cuts = [run.cuts(edges) for run in runs]
    found = [np.empty(0, REPEATED)]
    for index in range(ranges if runs else 0):
        rows = np.concatenate([run.read(*cut[index : index + 2]) for run, cut in zip(runs, cuts, strict=True)])
        parts = np.repeat([run.part for run in runs], [cut[index + 1] - cut[index] for cut in cuts])
        found.append(_often(rows, parts, section.max_documents))
    return np.concatenate(found)


class LineRemover:
    """Removes the `repeated` lines from the documents of one part, but each from none where it stays."""

    def __init__(self, section: Lines, repeated: Table, part: int) -> None:
        self._section, self._part = section, part
        self._lines = np.ascontiguousarray(repeated["line"])
        self._places = repeated[["part", "document"]]

    def edit(self, document: int, text: str) -> tuple[str, int]:
        """The text of document number `document` (from 0) of the part without those lines, and how many they were."""
        if not len(self._lines):
            return text, 0
        wanted, _ = line_hashes([text], self._section.min_characters)
        places = np.minimum(np.searchsorted(self._lines, wanted), len(self._lines) - 1)
        gone = (wanted != 0) & (self._lines[places] == wanted)
        if not gone.any():
            return text, 0
        stays = self._places[places]
        gone &= (stays["part"] != self._part) | (stays["document"] != document)
        if not gone.any():
            return text, 0
        kept = [line for line, drop in zip(text.split("\n"), gone.tolist(), strict=True) if not drop]
        return "\n".join(kept), int(gone.sum())


@dataclass(frozen=True)
class _Run:
    """Rows from the `first` on of a part's file, which is open only while it is looked at: there may be thousands."""

    part: int
    file: Path
    first: int
    rows: int

    def cuts(self, edges: NDArray[np.uint64]) -> list[int]:
        """Where lines from each edge on begin, with both ends of the run."""
        rows = np.memmap(self.file, COUNTED, "r", self.first * COUNTED.itemsize, (self.rows,))
        return [0, *np.searchsorted(rows["line"], edges).tolist(), self.rows]

    def read(self, start: int, stop: int) -> Table:
        return np.fromfile(self.file, COUNTED, stop - start, offset=(self.first + start) * COUNTED.itemsize)


def _runs(part: int, file: Path) -> list[_Run]:
    rows = file.stat().st_size // COUNTED.itemsize
    return [_Run(part, file, first, min(RUN, rows - first)) for first in range(0, rows, RUN)]


def _often(rows: Table, parts: NDArray[Any], most: int) -> Table:
    """Those of `rows` (in the order of their parts) that more than `most` documents have."""
    order = np.argsort(rows["line"], kind="stable")
    rows, parts = rows[order], parts[order]
    starts = _starts(rows, "line")
    often = starts[_sums(rows["documents"], starts) > most]
    table = np.empty(len(often), REPEATED)
    table["line"], table["part"], table["document"] = rows["line"][often], parts[often], rows["first"][often]
    return table


def _by_line(rows: Table) -> Table:
    return rows[np.argsort(rows["line"], kind="stable")]


def _starts(rows: Table, *fields: str) -> NDArray[np.int64]:
    """Where other values of `fields` begin in the sorted `rows`."""
    new = np.ones(len(rows), bool)
    new[1:] = np.any([rows[field][1:] != rows[field][:-1] for field in fields], axis=0)
    return np.flatnonzero(new)


def _sums(counts: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    return np.add.reduceat(counts, starts) if len(starts) else counts[:0]
