"""The n-gram counts of `features`, compiled: one pass over the code points of each text."""

import sys
from collections.abc import Sequence
from functools import cache

import numba
import numpy as np
from numpy.typing import NDArray

from smelt.corpus.classifier.features import CHARACTER_SEED, CLOSE, JOIN, OPEN, PRIME, WORD, WORD_SEED, Counts, Shape

_PRIME, _JOIN = np.uint64(PRIME), np.uint64(JOIN)
_WORD_SEED, _CHARACTER_SEED = np.uint64(WORD_SEED), np.uint64(CHARACTER_SEED)
_OPEN, _CLOSE, _HALF, _NOTHING = np.uint64(OPEN), np.uint64(CLOSE), np.uint64(32), np.uint64(0)


def fast_counts(shape: Shape, texts: Sequence[str]) -> Counts:
    """As `plain_counts`."""
    fewest, most = shape.characters or (1, 0)
    totals = np.zeros(shape.buckets, dtype=np.int32)
    indices, counts = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for text in texts:
        points = np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        seen = np.sort(_count(points, _in_words(), shape.words, fewest, most, totals))
        indices.append(seen)
        counts.append(totals[seen])
        totals[seen] = 0
    return Counts(
        np.cumsum([0, *map(len, indices[1:])], dtype=np.int64), np.concatenate(indices), np.concatenate(counts)
    )


@cache
def _in_words() -> NDArray[np.bool_]:
    """For every code point, whether a word can have it."""
    return np.array([WORD.match(chr(point)) is not None for point in range(sys.maxunicode + 1)])


@numba.njit(cache=True)
def _count(points, in_words, words, fewest, most, totals):
    seen = np.empty(16 + len(points) * (words + max(0, most - fewest + 1)) * 2, dtype=np.int32)
    recent = np.zeros(words, dtype=np.uint64)
    number = word = at = 0
    while at < len(points):
        if not in_words[points[at]]:
            at += 1
            continue
        start, value = at, _WORD_SEED
        while at < len(points) and in_words[points[at]]:
            value = (value ^ np.uint64(points[at])) * _PRIME
            at += 1
        recent[word % words] = value
        word += 1
        for length in range(1, min(words, word) + 1):
            joined = _NOTHING
            for back in range(length, 0, -1):
                joined = joined * _JOIN + recent[(word - back) % words]
            number = _add(joined, totals, seen, number)
        for first in range(start - 1, at + 1):
            value = _CHARACTER_SEED
            for length in range(1, min(most, at + 1 - first) + 1):
                here = first + length - 1
                point = _OPEN if here < start else _CLOSE if here == at else np.uint64(points[here])
                value = (value ^ point) * _PRIME
                if length >= fewest:
                    number = _add(value, totals, seen, number)
    return seen[:number].copy()


@numba.njit(cache=True)
def _add(value, totals, seen, number):
    bucket = np.int64((value ^ (value >> _HALF)) % np.uint64(len(totals)))
    if totals[bucket] == 0:
        seen[number] = bucket
        number += 1
    totals[bucket] += 1
    return number
