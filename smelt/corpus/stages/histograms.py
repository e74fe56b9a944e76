"""How long documents are and what filters say of them, before and after what was dropped."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 40
LENGTHS = [0, *(round(10 ** (power / 5)) for power in range(5, 41))]  # 10 characters to 100 million, 5 bins a decade
Histogram = dict[str, list[Any]]
Values = Callable[[], Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]]
"""Yields values and whether their documents are kept, part by part."""


def lengths(characters: NDArray[np.int64], kept: NDArray[np.bool_]) -> Histogram:
    """Of characters a document, in fixed bins; the last one is open."""
    return _histogram(np.array(LENGTHS, float), lambda: iter([(np.minimum(characters, LENGTHS[-1]), kept)]))


def scores(values: Values) -> Histogram | None:
    """Of one score over the range it takes; None where no value is a number.

    Bins are even for shares, in [0, 1], and for what varies little; otherwise they grow.
    """
    low, high = np.inf, -np.inf
    for column, _ in values():
        finite = _finite(column)
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return _histogram(_edges(low, high), values) if low <= high else None


def _edges(low: float, high: float) -> NDArray[np.float64]:
    if low >= 0 and high <= 1:
        return np.linspace(0, 1, BINS + 1)
    if low >= 0 and high > 100:
        return np.concatenate([[0.0], np.geomspace(1, high, BINS)[:-1], [high]])
    return np.linspace(low, max(high, low + 1), BINS + 1)


def _histogram(edges: NDArray[np.float64], values: Values) -> Histogram:
    before = np.zeros(len(edges) - 1, np.int64)
    after = before.copy()
    for column, kept in values():
        finite = np.isfinite(column)
        before += _counts(column[finite], edges)
        after += _counts(column[finite & kept], edges)
    return {"edges": edges.tolist(), "before": before.tolist(), "after": after.tolist()}


def _counts(values: ArrayLike, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = np.histogram(np.asarray(values, float), edges)[0].astype(np.int64)
    return counts


def _finite(column: NDArray[Any]) -> NDArray[Any]:
    finite: NDArray[Any] = column[np.isfinite(column)]
    return finite
