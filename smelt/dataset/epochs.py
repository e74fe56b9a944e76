"""One source's endless stream of windows: spans shuffled anew each epoch, windows shuffled within groups of spans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smelt.dataset.permutation import Integers, derive, permute

GROUP_SPANS = 1024
GROUP_SHARE = 16  # a group is at most this part of an epoch, as a change of sequence skips the rest of one


@dataclass(frozen=True)
class Layout:
    """How a source of `tokens` tokens is cut: whole spans of `span` tokens in groups, then a tail, a group by itself.

    A position counts windows of one length from the start of epoch 0; every epoch has the same number of windows.
    """

    tokens: int
    span: int

    @property
    def spans(self) -> int:
        """Whole spans."""
        return self.tokens // self.span

    @property
    def tail(self) -> int:
        """Tokens behind the last whole span."""
        return self.tokens % self.span

    @property
    def group(self) -> int:
        """Spans a group; the last group of whole spans may have fewer."""
        return min(GROUP_SPANS, max(1, self.spans // GROUP_SHARE))

    @property
    def groups(self) -> int:
        """Groups of whole spans; the tail is the one behind them."""
        return -(-self.spans // self.group)

    def windows(self, sequence: int) -> int:
        """Windows an epoch; fewer than `sequence` tokens, at the tail's end, are left out."""
        return self.spans * (self.span // sequence) + self.tail // sequence


class Epochs:
    """`Layout`s of all sources, answering for many windows at once. `keys` are one 64-bit number a source."""

    def __init__(self, layouts: Sequence[Layout], keys: Sequence[int]) -> None:
        self._span = layouts[0].span
        self._facts = np.array([(each.spans, each.tail, each.group) for each in layouts], dtype=np.int64).T
        self._keys = np.array(keys, dtype=np.uint64)

    def locate(self, source: Integers, position: Integers, sequence: int) -> tuple[Integers, Integers]:
        """(first token in the source, epoch) of windows of `sequence` tokens; all arrays [n]."""
        spans, tail, grouped = self._facts[:, source]
        per_span = self._span // sequence
        full = spans * per_span
        wide = grouped * per_span
        epoch, window = np.divmod(position, full + tail // sequence)
        in_tail = window >= full
        group = np.where(in_tail, -(-spans // grouped), window // wide)
        first = np.minimum(group * wide, full)
        size = np.where(in_tail, tail // sequence, np.minimum(wide, full - first))
        key = derive(self._keys[source], epoch)
        within = permute(window - first, size, derive(key, group))
        slot, part = np.divmod(within, per_span)
        slot = np.where(in_tail, 0, group * grouped + slot)
        start = permute(slot, np.maximum(spans, 1), key) * self._span + part * sequence
        return np.where(in_tail, spans * self._span + within * sequence, start), epoch
