"""Best-fit packing: documents -> windows that cut no document which fits into one, as a table on disk.

Documents are packed among those that begin in the same span, so that the table is made in one pass and in bounded
memory, and a window's documents lie close together in the shards.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smelt.dataset.permutation import Integers
from smelt.files import check_directory, whole_directory
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe

FORMAT = 1
_DTYPES = {"spans": "<u8", "windows": "<u8", "starts": "<u8", "lengths": "<u4"}
_COLUMNS = {"spans": 3, "windows": 2}


class Table(NamedTuple):
    """The windows of a source, span by span; arrays may be mapped from files.

    `spans` [spans + 1, 3]: pieces, tokens and windows before each span, of which the tail behind the last whole one is
    the last; `windows` [windows + 1, 2]: pieces and tokens before each window; `starts` and `lengths` [pieces]: a
    piece's first token in the source, and its tokens. A piece is a whole document but where one is longer than a
    window: that is cut from its start into full windows, and what is left of it packed like a document.
    """

    spans: NDArray[np.unsignedinteger]
    windows: NDArray[np.unsignedinteger]
    starts: NDArray[np.unsignedinteger]
    lengths: NDArray[np.unsignedinteger]

    def pieces(self, window: int) -> tuple[Integers, Integers]:
        """(first token in the source, tokens) of each piece of a window, in the order of the source."""
        first, last = map(int, self.windows[window : window + 2, 0])
        return self.starts[first:last].astype(np.int64), self.lengths[first:last].astype(np.int64)

    def tokens(self, windows: Integers) -> int:
        """Tokens of documents in some windows, [n]."""
        held = self.windows[windows + 1, 1].astype(np.int64) - self.windows[windows, 1].astype(np.int64)
        return int(held.sum())

    def find(self, span: int, position: int) -> int | None:
        """The window that holds the token at `position`, of a document that begins in `span`; None if none does."""
        (piece, _, window), (last, _, windows) = (map(int, row) for row in self.spans[span : span + 2])
        behind = position - self.starts[piece:last].astype(np.int64)
        holds = np.flatnonzero((behind >= 0) & (behind < self.lengths[piece:last]))
        if not holds.size:
            return None
        return window + int(np.searchsorted(self.windows[window:windows, 0], piece + holds[0], side="right")) - 1


def best_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of `lengths`, none over `room`, in bins that hold at most `room`: best-fit-decreasing.

    The longest first, each into the bin that it leaves the least room in (Ding et al. 2024, "Fewer Truncations Improve
    Language Modeling"); equal lengths in their order. Lengths of 0 are left out.

    >>> best_fit([3, 5, 2, 5, 1], 8)
    [[1, 0], [3, 2, 4]]
    """
    bins: list[list[int]] = []
    rooms: list[int] = []  # of the bins that have some left, ascending
    owners: list[int] = []
    for index in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        length = lengths[index]
        if not length:
            break
        place = bisect_left(rooms, length)
        if place == len(rooms):
            left, owner = room - length, len(bins)
            bins.append([index])
        else:
            left, owner = rooms.pop(place) - length, owners.pop(place)
            bins[owner].append(index)
        if left:
            place = bisect_right(rooms, left)
            rooms.insert(place, left)
            owners.insert(place, owner)
    return bins


def packed_sources(recipe: Recipe) -> list[tuple[str, int]]:
    """Every (source, sequence) that a stage with best-fit packing draws from, once, in order of name."""
    drawn = {
        (source, segment.sequence)
        for segment in Plan(recipe).segments
        if segment.packing == "best-fit"
        for source, weight in segment.mixture.items()
        if weight
    }
    return sorted(drawn)


def table_inputs(source: str, span: int, sequence: int) -> dict[str, Any]:
    """Everything that a table depends on, JSON-serialisable; `source` identifies the source's documents."""
    return {"format": FORMAT, "source": source, "span": span, "sequence": sequence}


def pack(lengths: Iterable[Integers], tokens: int, span: int, sequence: int) -> Table:
    """The windows of `sequence` tokens of a source, in memory. `lengths` are the tokens of its documents in order, in
    arrays of any size, `tokens` in all."""
    parts: dict[str, list[NDArray[np.unsignedinteger]]] = {name: [] for name in _DTYPES}
    for part in _spans(lengths, tokens, span, sequence):
        for name, array in part.items():
            parts[name].append(array)
    return _table({name: np.concatenate([np.zeros(0, _DTYPES[name]), *arrays]) for name, arrays in parts.items()})


def write_table(lengths: Iterable[Integers], tokens: int, span: int, sequence: int, out: Path) -> None:
    """`pack` into the folder `out`, with memory for a span and a batch of `lengths`."""
    manifest: dict[str, Any] = {"kind": "packing", "format": FORMAT, "span": span, "sequence": sequence}
    with whole_directory(out, manifest) as folder, ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in _DTYPES}
        for part in _spans(lengths, tokens, span, sequence):
            for name, array in part.items():
                files[name].write(array.tobytes())


def open_table(folder: Path) -> Table:
    """The table that `write_table` wrote, memory-mapped; InputError where it is damaged."""
    check_directory(folder, contents=False)

    def mapped(name: str) -> NDArray[np.unsignedinteger]:
        path = folder / name
        if not path.stat().st_size:
            return np.zeros(0, _DTYPES[name])
        return np.asarray(np.memmap(path, dtype=_DTYPES[name], mode="r"))

    return _table({name: mapped(name) for name in _DTYPES})


def _table(arrays: dict[str, NDArray[np.unsignedinteger]]) -> Table:
    return Table(
        **{name: each.reshape(-1, _COLUMNS[name]) if name in _COLUMNS else each for name, each in arrays.items()}
    )


def _spans(
    lengths: Iterable[Integers], tokens: int, span: int, sequence: int
) -> Iterator[dict[str, NDArray[np.unsignedinteger]]]:
    """What each span, and then the end, adds to the arrays of a table."""
    before = np.zeros(3, dtype=np.int64)
    for starts, sizes in _by_span(lengths, tokens // span + 1, span):
        firsts, each, counts = _windows(starts, sizes, sequence)
        held = np.add.reduceat(each, np.cumsum(counts) - counts) if len(counts) else counts
        windows = before[:2] + np.stack([np.cumsum(counts) - counts, np.cumsum(held) - held], axis=1)
        part = {"spans": before, "windows": windows, "starts": firsts, "lengths": each}
        yield {name: array.astype(_DTYPES[name]).ravel() for name, array in part.items()}
        before = before + np.array([len(firsts), sizes.sum(), len(counts)])
    yield {"spans": before.astype(_DTYPES["spans"]), "windows": before[:2].astype(_DTYPES["windows"])}


def _by_span(lengths: Iterable[Integers], spans: int, span: int) -> Iterator[tuple[Integers, Integers]]:
    """(first tokens, sizes) of the documents that begin in each span, in order; empty documents are left out."""
    at = number = 0
    held: list[tuple[Integers, Integers]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]

    def joined() -> tuple[Integers, Integers]:
        starts, sizes = (np.concatenate(each) for each in zip(*held, strict=True))
        del held[1:]
        return starts, sizes

    for batch in lengths:
        ends = at + np.cumsum(batch)
        at = int(ends[-1]) if len(ends) else at
        sizes = batch[batch > 0]
        starts = ends[batch > 0] - sizes
        owners = starts // span
        cuts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
        for first, last in pairwise(cuts):
            while first < last and number < owners[first]:
                yield joined()
                number += 1
            held.append((starts[first:last], sizes[first:last]))
    while number < spans:
        yield joined()
        number += 1


def _windows(starts: Integers, sizes: Integers, sequence: int) -> tuple[Integers, Integers, Integers]:
    """(first tokens and lengths of pieces, pieces a window) of the documents of a span."""
    full, rest = np.divmod(sizes, sequence)
    nth = np.arange(full.sum()) - np.repeat(np.cumsum(full) - full, full)
    whole = np.repeat(starts, full) + nth * sequence
    bins = best_fit(rest.tolist(), sequence)
    order = np.array([index for each in bins for index in sorted(each)], dtype=np.int64)
    counts = np.array([1] * len(whole) + [len(each) for each in bins], dtype=np.int64)
    firsts = np.concatenate([whole, (starts + full * sequence)[order]])
    return firsts, np.concatenate([np.full(len(whole), sequence), rest[order]]), counts
