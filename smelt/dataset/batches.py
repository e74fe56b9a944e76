"""Batches: the windows of a step as tensors, with targets and document starts; on demand or from a thread ahead."""

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smelt.dataset.order import DataOrder
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
    `starts` int32 [batch, seq], the row position where each token's document begins (0: at or before the row's start),
    or None where documents are not told apart; `sources` int64 [batch], index into `Recipe.sources`.
    """

    tokens: Tensor
    targets: Tensor
    starts: Tensor | None
    sources: Tensor


class BatchSource:
    """Batches of any step. `sources` are the opened shards by name, `eos` the id that ends a document.

    Raises InputError for a source that is too small, or whose documents do not end with `eos`.
    """

    def __init__(self, recipe: Recipe, sources: Mapping[str, Shards], eos: int) -> None:
        self.order = data_order(recipe, sources)
        self._eos = eos
        self._shards = {recipe.sources.index(name): shards for name, shards in sources.items()}
        self._document_mask: bool = recipe.section("train").document_mask
        for name, shards in sources.items():
            _check_ends(name, shards, eos)

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of 0-based `step`, or the rows of it that `rank` of `ranks` trains on."""
        windows = self.order.windows(step, rank, ranks)
        shape = (len(windows.sources), windows.sequence)
        tokens, targets = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
        columns: list[NDArray[np.integer]] = []
        for row, (source, offset) in enumerate(zip(windows.sources.tolist(), windows.offsets.tolist(), strict=True)):
            if windows.packed:
                columns.append(self._packed(source, offset, tokens[row], targets[row]))
                continue
            window, ends = self._shards[source].window(offset, windows.sequence)
            tokens[row], targets[row] = window[:-1], window[1:]
            columns.append(ends)
        starts = _mask(columns, targets) if self._document_mask else None
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(targets),
            None if starts is None else torch.from_numpy(starts),
            torch.from_numpy(windows.sources),
        )

    def _packed(
        self, source: int, window: int, tokens: Integers, targets: Integers
    ) -> NDArray[np.integer] | NDArray[np.uint64]:
        """Fill a row with the documents of a packed window, then with padding that nothing is learned from; returns in
        which columns, from 1, a document or the padding before the row's end has just ended."""
        shards, sequence = self._shards[source], len(tokens)
        starts, lengths = self.order.table(source, sequence).pieces(window)
        if lengths[0] == sequence:  # perhaps a part of a document, which goes on in another window
            part, ends = shards.window(int(starts[0]), sequence)
            tokens[:], targets[:] = part[:-1], part[1:]
            return ends
        columns = np.cumsum(lengths)
        for start, length, column in zip(starts.tolist(), lengths.tolist(), columns.tolist(), strict=True):
            shards.read_into(start, tokens[column - length : column])
        used = int(columns[-1])
        tokens[used:], targets[: used - 1], targets[used - 1 :] = self._eos, tokens[1:used], IGNORED
        return columns

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


def data_order(recipe: Recipe, sources: Mapping[str, Shards]) -> DataOrder:
    """The data order of a recipe over its opened sources."""
    return DataOrder(
        recipe,
        {name: shards.tokens for name, shards in sources.items()},
        lambda name, sequence: sources[name].packed(recipe.dataset.span, sequence),
    )


def _mask(columns: Sequence[NDArray[np.integer]], targets: Integers) -> NDArray[np.int32]:
    """Ignore targets across document ends, which are given for each row, and return where documents begin."""
    rows, sequence = targets.shape
    if not rows:
        return np.zeros((0, sequence), dtype=np.int32)
    row = np.repeat(np.arange(rows), [len(each) for each in columns])
    column = np.concatenate(columns).astype(np.int64)
    targets[row, column - 1] = IGNORED
    inside = column < sequence
    # Each start is repeated up to the next one, over all rows as if they were one.
    first = np.concatenate([np.arange(rows) * sequence, (row * sequence + column)[inside]])
    begins = np.concatenate([np.zeros(rows, dtype=np.int32), column[inside].astype(np.int32)])
    order = np.argsort(first, kind="stable")
    lengths = np.diff(first[order], append=rows * sequence)
    return np.repeat(begins[order], lengths).reshape(rows, sequence)


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
