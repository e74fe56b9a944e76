"""Batches: the windows of a step as tensors, with targets and document starts; on demand or from a thread ahead."""

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smelt.dataset.order import DataOrder, Windows
from smelt.dataset.permutation import Integers
from smelt.dataset.shards import Shards
from smelt.errors import InputError
from smelt.recipe.schema import Recipe

IGNORED = -100
_LOOK_AT_ENDS = 256
_POLL_SECONDS = 0.1


@dataclass
class Batch:
    """One step's windows, on the CPU.

    `tokens` int64 [batch, seq]; `targets` int64 [batch, seq], the next token, -100 where none is to be learned;
    `starts` int32 [batch, seq], the row position where each token's document begins (0: at or before the row's start);
    `sources` int64 [batch], index into `Recipe.sources`.
    """

    tokens: Tensor
    targets: Tensor
    starts: Tensor
    sources: Tensor
    step: int


class BatchSource:
    """Batches of any step. `sources` are the opened shards by name, `eos` the id that ends a document.

    Raises InputError for a source that is too small, or whose documents do not end with `eos`.
    """

    def __init__(self, recipe: Recipe, sources: Mapping[str, Shards], eos: int) -> None:
        self.order = DataOrder(recipe, {name: shards.tokens for name, shards in sources.items()})
        self._shards = {recipe.sources.index(name): shards for name, shards in sources.items()}
        self._document_mask: bool = recipe.section("train").document_mask
        for name, shards in sources.items():
            _check_ends(name, shards, eos)

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of 0-based `step`, or the rows of it that `rank` of `ranks` trains on."""
        windows = self.order.windows(step, rank, ranks)
        shape = (len(windows.sources), windows.sequence)
        tokens, targets = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
        starts = np.zeros(shape, dtype=np.int32)
        parts = [(self._shards[i], np.flatnonzero(windows.sources == i)) for i in np.unique(windows.sources).tolist()]
        for shards, rows in parts:
            _fill(shards, rows, windows, tokens, targets[:, -1])
        targets[:, :-1] = tokens[:, 1:]
        if self._document_mask:
            for shards, rows in parts:
                _mask(shards, rows, windows, targets, starts)
            np.maximum.accumulate(starts, axis=1, out=starts)
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(targets),
            torch.from_numpy(starts),
            torch.from_numpy(windows.sources),
            step,
        )

    def prefetch(
        self, first_step: int, last_step: int, depth: int = 2, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """Batches of the steps from `first_step` up to, not including, `last_step`, up to `depth` of them made ahead.

        A thread makes them; it ends when the iterator does or is closed, and what it raises is raised here.
        """
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
        closed = threading.Event()

        def offer(item: Batch | BaseException | None) -> bool:
            while not closed.is_set():
                try:
                    ready.put(item, timeout=_POLL_SECONDS)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for step in range(first_step, last_step):
                    if not offer(self.batch(step, rank, ranks)):
                        return
                offer(None)
            except BaseException as error:
                offer(error)

        thread = threading.Thread(target=work, name="smelt-batches", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            closed.set()
            thread.join()


def _fill(shards: Shards, rows: Integers, windows: Windows, tokens: Integers, following: Integers) -> None:
    """Read the rows' tokens, and the one that follows each row; a source's first token follows its last."""
    for row, offset in zip(rows.tolist(), windows.offsets[rows].tolist(), strict=True):
        shards.read_into(offset, tokens[row])
        following[row] = shards.token((offset + windows.sequence) % shards.tokens)


def _mask(shards: Shards, rows: Integers, windows: Windows, targets: Integers, starts: NDArray[np.int32]) -> None:
    """Ignore targets across document ends, and mark where documents begin."""
    row, column = shards.ends_within(windows.offsets[rows], windows.sequence)
    row = rows[row]
    targets[row, column - 1] = IGNORED
    inside = column < windows.sequence
    starts[row[inside], column[inside]] = column[inside]


def _check_ends(name: str, shards: Shards, eos: int) -> None:
    """Some of the first documents must end with `eos` (not all: datatrove may index the ends of chunks as well)."""
    for document in range(min(shards.documents, _LOOK_AT_ENDS)):
        start, end = shards.document_bounds(document)
        if end > start and shards.token(end - 1) == eos:
            return
    raise InputError(
        f"source '{name}': none of the first documents in {shards.folder} ends with the end-of-text id {eos}; tokenize "
        "again with eos_token set, or load the tokenizer that the shards were built with"
    )
