"""Which document is dropped, and by what: thresholds on the scores of each source, then what spans all of them.

Only scores, hits, sizes and signatures are read here, never a text.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.duplicates import originals
from smelt.corpus.filters.table import reasons
from smelt.corpus.stages.folder import new_table, part_file
from smelt.corpus.stages.measure import read_scores
from smelt.files import disk_errors

LARGEST_CLUSTERS = 100
SHOWN_MEMBERS = 5


@dataclass
class Table:
    """The documents of all sources, one after the other, as arrays [documents].

    `codes` say which of the source's `steps` dropped a document, counted from 1, and 0 where it is kept; `offsets`
    are those of each part of each source.
    """

    offsets: dict[str, list[int]]
    steps: dict[str, list[str]]
    codes: NDArray[np.int16]
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, counts: Mapping[str, Sequence[int]]) -> "Table":
        """A table of sources whose parts have so many documents, all kept."""
        offsets, total = {}, 0
        for name, parts in counts.items():
            offsets[name] = np.cumsum([total, *parts]).tolist()
            total = offsets[name][-1]
        groups = np.repeat(np.arange(len(counts)), [sum(parts) for parts in counts.values()]).astype(np.int64)
        return cls(offsets, {name: [] for name in counts}, np.zeros(total, np.int16), groups)

    def parts(self, source: str) -> Iterator[tuple[int, slice]]:
        """Number and place of each part of a source that has documents."""
        bounds = self.offsets[source]
        for part, (start, end) in enumerate(itertools.pairwise(bounds)):
            if start < end:
                yield part, slice(start, end)

    def whole(self, source: str) -> slice:
        """The place of a source."""
        return slice(self.offsets[source][0], self.offsets[source][-1])

    def where(self, index: int) -> tuple[str, int, int]:
        """Source, part and row of a document."""
        source = list(self.offsets)[int(self.groups[index])]
        part = int(np.searchsorted(self.offsets[source], index, side="right")) - 1
        return source, part, index - self.offsets[source][part]

    def drop(self, source: str, step: str, place: slice, mask: NDArray[np.bool_]) -> None:
        """Drop those of `mask` that nothing dropped before."""
        names = self.steps[source]
        if step not in names:
            names.append(step)
        codes = self.codes[place]
        codes[mask & (codes == 0)] = names.index(step) + 1


@dataclass
class Cluster:
    """A kept document and those that repeat it, as indices; `dropped` are the first few of `size` - 1."""

    kind: str
    size: int
    kept: int
    dropped: list[int] = field(default_factory=list)


def filter_source(table: Table, source: str, filters: Sequence[tuple[str, Any, Path]]) -> None:
    """Apply the thresholds of a source's filters (name, section, folder of scores), in order."""
    for part, place in table.parts(source):
        for name, section, folder in filters:
            for reason, mask in reasons(section, read_scores(folder, part)).items():
                table.drop(source, f"{name}: {reason}", place, np.asarray(mask))


def drop_contaminated(table: Table, source: str, folder: Path) -> None:
    """Drop what repeats a protected text."""
    for part, place in table.parts(source):
        table.drop(source, "contaminated", place, read_scores(folder, part)["hits"] > 0)


def drop_duplicates(table: Table, section: Any, folders: Mapping[str, Path], scratch: Path) -> list[Cluster]:
    """Drop all but the first of documents that repeat each other; returns the largest clusters.

    Signatures are joined in the file `scratch`, so that they need not fit into memory.
    """
    alive = table.codes == 0
    if not alive.any():
        return []
    joined = _joined(table, folders, scratch)
    first = originals(section, joined, table.groups, alive)
    dropped = alive & (first != np.arange(len(first)))
    for source in table.offsets:
        place = table.whole(source)
        table.drop(source, section.kind, place, dropped[place])
    return _clusters(section.kind, first, np.flatnonzero(dropped))


def _joined(table: Table, folders: Mapping[str, Path], scratch: Path) -> NDArray[np.uint64]:
    parts = [(folder, *each) for source, folder in folders.items() for each in table.parts(source)]
    files = [(part_file(folder, part, ".npy"), place) for folder, part, place in parts]
    columns = np.load(files[0][0], mmap_mode="r").shape[1]
    with disk_errors(scratch):
        whole = new_table(scratch, (len(table.codes), columns), "F")
    for file, place in files:
        whole[place] = np.load(file, mmap_mode="r")
    return whole


def _clusters(kind: str, first: NDArray[np.int64], dropped: NDArray[np.int64]) -> list[Cluster]:
    """The largest ones; among equals the earliest."""
    kept, sizes = np.unique(first[dropped], return_counts=True)
    largest = np.argsort(-sizes, kind="stable")[:LARGEST_CLUSTERS]
    clusters = {int(kept[each]): Cluster(kind, int(sizes[each]) + 1, int(kept[each])) for each in largest}
    for index in dropped[np.isin(first[dropped], list(clusters))].tolist():
        members = clusters[int(first[index])].dropped
        if len(members) < SHOWN_MEMBERS:
            members.append(index)
    return list(clusters.values())
