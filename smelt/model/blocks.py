"""Blocks of queries and the keys they meet: how attention over rows is cut into pieces, and stored by them."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smelt.model.scope import Scope

BLOCK = 64  # queries
GROUPED = 32  # queries, where the heads of a group are multiplied together
ELEMENTS = 1 << 21  # scores computed at once, unless one row's block has more


@dataclass(frozen=True)
class Block:
    """Queries `first` to `end` of some rows; they meet keys 0 to `sinks`, then keys `low` to `end`."""

    rows: slice
    first: int
    end: int
    low: int
    sinks: int

    @property
    def size(self) -> int:
        """Queries of one head."""
        return self.end - self.first

    def keys(self, x: Tensor) -> Tensor:
        """The keys' part of `[rows, seq, channels]`."""
        near = x[self.rows, self.low : self.end]
        return torch.cat((x[self.rows, : self.sinks], near), 1) if self.sinks else near

    def add(self, x: Tensor, value: Tensor) -> None:
        """Add to what `keys` reads."""
        x[self.rows, self.low : self.end] += value[:, self.sinks :]
        if self.sinks:
            x[self.rows, : self.sinks] += value[:, : self.sinks]

    def distances(self) -> Tensor:
        """From each key to each query, int64 `[queries, keys]`."""
        keys = torch.cat((torch.arange(self.sinks), torch.arange(self.low, self.end)))
        return torch.arange(self.first, self.end)[:, None] - keys

    def hide(self, scores: Tensor, scope: Scope) -> None:
        """Make what `scope` hides -inf in `[rows, group, queries, keys]`; only the edges of the span have any."""
        near = scores[..., self.sinks :]
        near[..., self.first - self.low :] += _mask(scope, self.first, self.end, self.first, self.end)
        if scope.window is not None and self.end - scope.window > self.low:
            edge = self.end - scope.window
            near[..., : edge - self.low] += _mask(scope, self.first, self.end, self.low, edge)


def block_size(group: int) -> int:
    """Queries of a block, where so many heads are multiplied together."""
    return BLOCK if group == 1 else GROUPED


@dataclass(frozen=True)
class Queries:
    """What belongs to queries, `[rows, group, seq, channels]`, stored block by block: each is one piece of memory, with
    the heads of a group under each other."""

    flat: Tensor  # [seq * rows * group, channels]
    rows: int
    group: int

    def of(self, block: Block) -> Tensor:
        """A view of the block's part, `[rows, group * queries, channels]`."""
        heads = self.rows * self.group
        return self.flat[block.first * heads : block.end * heads].view(self.rows, -1, self.flat.shape[1])[block.rows]

    def new(self, flat: Tensor) -> "Queries":
        """Other channels of the same queries."""
        return Queries(flat, self.rows, self.group)


def blocks(q: Queries, scope: Scope) -> Iterator[Block]:
    """The blocks that together hold every query once."""
    rows, group, size = q.rows, q.group, block_size(q.group)
    sequence = len(q.flat) // (rows * group)
    window, sinks = scope.window or sequence, scope.sink_tokens
    together = max(1, ELEMENTS // (group * size * min(sequence, window + size + sinks)))
    for top in range(0, rows, together):
        for first in range(0, sequence, size):
            low = max(0, first - window + 1)
            reach = (low, sinks) if low > sinks else (0, 0)
            yield Block(slice(top, top + together), first, min(first + size, sequence), *reach)


@functools.lru_cache(maxsize=256)
def _mask(scope: Scope, first: int, end: int, low: int, high: int) -> Tensor:
    """-inf where queries `first` to `end` do not see keys `low` to `high`, else 0."""
    sees = scope.sees(torch.arange(first, end)[:, None], torch.arange(low, high), 0)
    return torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)
