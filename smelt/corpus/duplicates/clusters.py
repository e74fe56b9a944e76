"""Which documents belong together, from keys that are equal: connected components, each named by its first member."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def join_equals(labels: NDArray[np.int64], members: NDArray[np.int64], keys: Iterable[NDArray[Any]]) -> None:
    """Join the components of all `members` (ascending) that agree in each of `keys` (arrays [members]).

    `labels`, int64 [documents], names the first document of each one's component, before and after. A few arrays of
    the size of `members` are all that is held.
    """
    order, equal = _sorted(keys)
    again = np.flatnonzero(equal)
    left, right = members[order[again]], members[order[again + 1]]
    del order, equal, again
    while True:
        first, second = labels[left], labels[right]
        apart = first != second
        if not apart.any():
            return
        left, right, first, second = left[apart], right[apart], first[apart], second[apart]
        np.minimum.at(labels, np.maximum(first, second), np.minimum(first, second))
        _flatten(labels)


def _sorted(keys: Iterable[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """An order that puts members of equal keys side by side, ascending, and whether each equals the next one."""
    first, *others = keys
    order = np.argsort(first, kind="stable") if not others else np.lexsort((first, *others))
    equal = np.ones(max(len(order) - 1, 0), bool)
    for key in (first, *others):
        arranged = key[order]
        equal &= arranged[1:] == arranged[:-1]
    return order, equal


def _flatten(labels: NDArray[np.int64]) -> None:
    """Let every label name the end of its chain."""
    while True:
        further = labels[labels]
        if np.array_equal(further, labels):
            return
        labels[:] = further
