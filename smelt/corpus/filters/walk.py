"""A byte automaton walked by compiled code: which features a text has, and how often."""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


class Walk:
    """`next_state[row[state] * 256 + byte]` is the next state, `output[state]` the feature it stands for, or -1."""

    def __init__(self, next_state: Any, row: Any, output: Sequence[int]) -> None:
        self._next = np.asarray(next_state)
        self._row = np.asarray(row, dtype=np.int64) << 8
        self._output = np.asarray(output, dtype=np.int32)
        self._counts = np.zeros(int(self._output.max()) + 1, dtype=np.int32)
        self._seen = np.zeros(len(self._counts), dtype=np.int32)

    def __call__(self, text: bytes) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Features in the order in which they first appear, and their counts."""
        data = np.frombuffer(text, dtype=np.uint8)
        number = _walk(data, self._next, self._row, self._output, self._counts, self._seen)
        features = self._seen[:number].copy()
        counts = self._counts[features]
        self._counts[features] = 0
        return features, counts


@numba.njit(cache=True)
def _walk(data, next_state, row, output, counts, seen):
    state, number = 0, 0
    for byte in data:
        state = next_state[row[state] + byte]
        feature = output[state]
        if feature >= 0:
            if counts[feature] == 0:
                seen[number] = feature
                number += 1
            counts[feature] += 1
    return number
