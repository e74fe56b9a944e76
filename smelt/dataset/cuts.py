"""How far a source has come: positions in its endless stream of windows, whichever way those are cut, and back from a
token to the positions that hold it."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from smelt.dataset.epochs import Layout
from smelt.dataset.permutation import Keys, derive, invert


class Place(NamedTuple):
    """Where a token is in a window: the window's first token or, packed, its number; the column; and the token behind
    the last that follow in the same stretch of the same window."""

    window: int
    column: int
    until: int


class Cut(Protocol):
    """One source cut into windows of one length in one way. Positions count its windows from the start of epoch 0."""

    @property
    def sequence(self) -> int:
        """Tokens a window."""

    @property
    def windows(self) -> int:
        """Windows an epoch."""

    def read(self, position: int) -> int:
        """Tokens of documents in the windows before a position."""

    def passed(self, position: int) -> int:
        """Tokens that lie behind a position, read or skipped, over all epochs."""

    def reach(self, position: int) -> tuple[int, int]:
        """The first (epoch, group) that has not begun at a position."""

    def begin(self, epoch: int, group: int) -> int:
        """The position of a group's first window."""

    def place(self, token: int, document: int) -> Place | None:
        """Where a token of the document that begins at token `document` is; None if it is in no window."""

    def position(self, epoch: int, window: int) -> int:
        """The position of a window, as `Place` names it, in an epoch."""


@dataclass(frozen=True)
class Concatenated:
    """Windows cut from the stream of tokens, whatever documents they cut. `key` is the source's, [1]."""

    layout: Layout
    sequence: int
    key: Keys

    @property
    def windows(self) -> int:
        """Windows an epoch."""
        return self.layout.windows(self.sequence)

    def read(self, position: int) -> int:
        """Tokens in the windows before a position."""
        return position * self.sequence

    def passed(self, position: int) -> int:
        """Tokens behind a position; those that fill no window at an epoch's end are left out, and so passed over."""
        epochs, window = divmod(position, self.windows)
        return epochs * self.layout.tokens + window * self.sequence

    def reach(self, position: int) -> tuple[int, int]:
        """The first (epoch, group) that has not begun at a position."""
        epoch, window = divmod(position, self.windows)
        full = self.layout.spans * (self.layout.span // self.sequence)
        if window > full:
            return epoch + 1, 0
        if window == full:
            return epoch, self.layout.groups
        return epoch, -(-window // (self.layout.group * (self.layout.span // self.sequence)))

    def begin(self, epoch: int, group: int) -> int:
        """The position of a group's first window."""
        spans = min(group * self.layout.group, self.layout.spans)
        return epoch * self.windows + spans * (self.layout.span // self.sequence)

    def place(self, token: int, document: int) -> Place | None:
        """Where a token is; None behind the last whole window."""
        window, column = divmod(token, self.sequence)
        first = window * self.sequence
        return Place(first, column, first + self.sequence) if window < self.windows else None

    def position(self, epoch: int, window: int) -> int:
        """The position of the window that begins with token `window`, in an epoch."""
        layout, per_span = self.layout, self.layout.span // self.sequence
        key = derive(self.key, np.array([epoch]))
        span, part = divmod(window // self.sequence, per_span)
        if span == layout.spans:
            group, within, size = layout.groups, part, layout.tail // self.sequence
        else:
            slot = int(invert(np.array([span]), np.array([layout.spans]), key)[0])
            group, slot = divmod(slot, layout.group)
            within = slot * per_span + part
            size = min(layout.group, layout.spans - group * layout.group) * per_span
        order = invert(np.array([within]), np.array([size]), derive(key, np.array([group])))
        return self.begin(epoch, group) + int(order[0])
