"""One source's endless stream of packed windows: spans come in the same order and groups as for concatenated ones, and
windows are shuffled within a group, however many each span has."""

from functools import lru_cache

import numpy as np

from smelt.dataset.cuts import Place
from smelt.dataset.epochs import Layout
from smelt.dataset.packing import Table
from smelt.dataset.permutation import Integers, Keys, derive, invert, permute

_EPOCHS = 4  # whose groups are kept in memory, 16 bytes a group
_GROUPS = 16  # whose spans are
_CHUNK = 2**20  # spans permuted at a time


class Packed:
    """The windows of a `table` as a `Cut`: positions count windows from the start of epoch 0; every epoch has all of
    them. `key` is the source's, [1].

    The first look into an epoch takes time for each of its spans, 0.3 s a million; later ones are logarithmic in the
    number of groups.
    """

    def __init__(self, layout: Layout, sequence: int, key: Keys, table: Table) -> None:
        self.sequence = sequence
        _, self._tokens, self.windows = map(int, table.spans[-1])
        self._layout, self._key, self._table = layout, key, table
        self._groups = lru_cache(_EPOCHS)(self._count_groups)
        self._spans = lru_cache(_GROUPS)(self._count_spans)

    def locate(self, position: Integers) -> tuple[Integers, Integers]:
        """(number of the window in the table, epoch) at positions [n]."""
        epochs, nth = np.divmod(position, self.windows)
        window = np.empty(len(position), dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            inside = np.flatnonzero(epochs == epoch)
            before = self._groups(epoch)[0]
            groups = np.searchsorted(before, nth[inside], side="right") - 1
            for group in np.unique(groups).tolist():
                mine = inside[groups == group]
                window[mine] = self._in_group(epoch, group, nth[mine] - before[group])
        return window, epochs

    def read(self, position: int) -> int:
        """Tokens of documents in the windows before a position."""
        epoch, nth = divmod(position, self.windows)
        windows, tokens = self._groups(epoch)
        group = int(np.searchsorted(windows, nth, side="right")) - 1
        partly = self._in_group(epoch, group, np.arange(nth - windows[group]))
        return epoch * self._tokens + int(tokens[group]) + self._table.tokens(partly)

    def passed(self, position: int) -> int:
        """Tokens behind a position; windows hold every token of the source once."""
        return self.read(position)

    def reach(self, position: int) -> tuple[int, int]:
        """The first (epoch, group) that has not begun at a position."""
        epoch, nth = divmod(position, self.windows)
        before = self._groups(epoch)[0][:-1]
        group = int(np.searchsorted(before, nth, side="left"))
        return (epoch, group) if group < len(before) else (epoch + 1, 0)

    def begin(self, epoch: int, group: int) -> int:
        """The position of a group's first window."""
        return epoch * self.windows + int(self._groups(epoch)[0][group])

    def place(self, token: int, document: int) -> Place | None:
        """Where a token of the document that begins at token `document` is."""
        window = self._table.find(document // self._layout.span, token)
        if window is None:
            return None
        starts, lengths = self._table.pieces(window)
        piece = int(np.flatnonzero((starts <= token) & (token < starts + lengths))[0])
        column = int(lengths[:piece].sum()) + token - int(starts[piece])
        return Place(window, column, int(starts[piece] + lengths[piece]))

    def position(self, epoch: int, window: int) -> int:
        """The position of window number `window` in an epoch."""
        layout = self._layout
        span = int(np.searchsorted(self._table.spans[:, 2], window, side="right")) - 1
        key, group = derive(self._key, np.array([epoch])), layout.groups
        if span < layout.spans:
            group = int(invert(np.array([span]), np.array([layout.spans]), key)[0]) // layout.group
        spans, before = self._spans(epoch, group)
        slot = int(np.flatnonzero(spans == span)[0])
        within = before[slot] + window - int(self._table.spans[span, 2])
        order = invert(np.array([within]), before[-1:], derive(key, np.array([group])))
        return self.begin(epoch, group) + int(order[0])

    def _in_group(self, epoch: int, group: int, nth: Integers) -> Integers:
        """Numbers in the table of the windows that come at places `nth` [n] of a group."""
        spans, before = self._spans(epoch, group)
        key = derive(derive(self._key, np.array([epoch])), np.array([group]))
        within = permute(nth, np.full(len(nth), before[-1]), np.repeat(key, len(nth)))
        slot = np.searchsorted(before, within, side="right") - 1
        first: Integers = self._table.spans[spans[slot], 2].astype(np.int64)
        return first + within - before[slot]

    def _count_groups(self, epoch: int) -> tuple[Integers, Integers]:
        """Windows and tokens before each group of an epoch, and at its end; the tail is the last group."""
        layout = self._layout
        key = derive(self._key, np.array([epoch]))
        sums = [np.zeros((1, 2), dtype=np.int64)]
        step = layout.group * max(1, _CHUNK // layout.group)
        for first in range(0, layout.spans, step):
            spans = self._permuted(first, min(first + step, layout.spans), key)
            held = self._table.spans[spans + 1, 1:].astype(np.int64) - self._table.spans[spans, 1:].astype(np.int64)
            sums.append(np.add.reduceat(held, np.arange(0, len(spans), layout.group), axis=0))
        ends = self._table.spans[layout.spans :, 1:].astype(np.int64)
        tokens, windows = np.cumsum(np.concatenate([*sums, np.diff(ends, axis=0)]), axis=0).T
        return windows, tokens

    def _count_spans(self, epoch: int, group: int) -> tuple[Integers, Integers]:
        """The spans of a group in their order, [n], and the windows before each and at the end, [n + 1]."""
        layout = self._layout
        if group == layout.groups:
            spans = np.array([layout.spans])
        else:
            first = group * layout.group
            key = derive(self._key, np.array([epoch]))
            spans = self._permuted(first, min(first + layout.group, layout.spans), key)
        bounds = self._table.spans[:, 2]
        counts = bounds[spans + 1].astype(np.int64) - bounds[spans].astype(np.int64)
        return spans, np.concatenate([[0], np.cumsum(counts)])

    def _permuted(self, first: int, last: int, key: Keys) -> Integers:
        """The spans in slots [first, last) of an epoch."""
        slots = np.arange(first, last)
        return permute(slots, np.full(len(slots), self._layout.spans), np.repeat(key, len(slots)))
