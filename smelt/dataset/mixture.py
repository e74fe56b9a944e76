"""A stage's mixture as a table of one period: which source each window comes from, exactly balanced at every point."""

import heapq
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from smelt.dataset.permutation import Integers

EXACT = 10_000  # weights with up to four decimals get a period that meets them exactly
PERIOD = 2**16  # windows in the period of all other weights
_NEAR = 1e-9


class Mixture:
    """Windows of a stage -> (source, which window of that source), in O(1) for any window.

    `counts` are the windows a source gets in every aligned `period`. In every prefix of n windows a source has had
    within one window of n * counts / period.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.counts = window_counts(weights)
        self.period = int(self.counts.sum())
        self._source, self._rank = _balanced(tuple(self.counts.tolist()))

    def locate(self, window: Integers) -> tuple[Integers, Integers]:
        """For windows counted from the stage's first: the source's index, and how many it had before, both [n]."""
        periods, at = np.divmod(window, self.period)
        source = self._source[at]
        return source, periods * self.counts[source] + self._rank[at]

    def drawn(self, windows: int) -> Integers:
        """How many of the stage's first `windows` come from each source, int64 [sources]."""
        periods, rest = divmod(windows, self.period)
        return periods * self.counts + np.bincount(self._source[:rest], minlength=len(self.counts))

    def window_of(self, source: int, nth: Integers) -> Integers:
        """The window of the stage that is a source's `nth`, both from 0, [n]: the inverse of `locate`."""
        periods, rank = np.divmod(nth, self.counts[source])
        slots: Integers = np.flatnonzero(self._source == source)
        return periods * self.period + slots[rank]


def window_counts(weights: Sequence[float]) -> Integers:
    """Whole windows a period for weights of any positive sum, int64 [sources].

    The period is the smallest of up to `EXACT` windows that meets the weights, or else `PERIOD` with largest
    remainders, where shares are less than 1 / PERIOD off.

    >>> window_counts([0.85, 0.12, 0.03]).tolist()
    [85, 12, 3]
    """
    share = np.asarray(weights, dtype=np.float64) / max(weights)
    share /= share.sum()
    scaled = np.arange(1, EXACT + 1)[:, None] * share  # [periods, sources]
    nearest = np.rint(scaled)
    meets = (np.abs(scaled - nearest) < _NEAR) & ((nearest > 0) | (share == 0))
    exact = np.flatnonzero(meets.all(axis=1))
    if exact.size:
        met: Integers = nearest[exact[0]].astype(np.int64)
        return met
    counts: Integers = np.floor(PERIOD * share).astype(np.int64)
    remainders = PERIOD * share - counts
    counts[np.argsort(-remainders, kind="stable")[: PERIOD - counts.sum()]] += 1
    return counts


@lru_cache(maxsize=32)
def _balanced(counts: tuple[int, ...]) -> tuple[Integers, Integers]:
    """The source of each slot of a period, and how many slots that source had before it.

    Window j of a source may come no earlier and no later than keeps the source within one window of its share; the
    earliest deadline goes first. That all deadlines can be met is Tijdeman's theorem (1980, "The chairman assignment
    problem").
    """
    period = sum(counts)
    table = np.empty((2, period), dtype=np.int64)
    waiting = [(1, source, 0) for source, count in enumerate(counts) if count]
    ready: list[tuple[int, int, int]] = []
    for slot in range(1, period + 1):
        while waiting and waiting[0][0] <= slot:
            _, source, rank = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(rank + 1) * period // counts[source]), source, rank))
        _, source, rank = heapq.heappop(ready)
        table[:, slot - 1] = source, rank
        if rank + 1 < counts[source]:
            heapq.heappush(waiting, ((rank + 1) * period // counts[source] + 1, source, rank + 1))
    return table[0], table[1]
