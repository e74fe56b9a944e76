"""Texts -> counts of their hashed word and character n-grams, as fastText has them (Joulin et al. 2016).

A text is lowercased; a word is a run of letters, digits and `_`; character n-grams lie within `<word>`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from smelt.corpus.proven import Proven

WORD = re.compile(r"\w+")
MASK, PRIME, JOIN = 2**64 - 1, 0x100000001B3, 0x9E3779B97F4A7C15
WORD_SEED, CHARACTER_SEED = 0xCBF29CE484222325, 0x84222325CBF29CE4
OPEN, CLOSE = ord("<"), ord(">")


class Shape(BaseModel):
    """Which n-grams: of up to `words` words, and of `characters` (fewest, most) characters, in `buckets` buckets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: int = Field(default=2, ge=1, le=5)
    characters: tuple[int, int] | None = None
    buckets: int = Field(default=2**18, ge=2**10, le=2**24)


class Counts(NamedTuple):
    """Row i has the buckets `indices[starts[i]:starts[i + 1]]`, sorted, each found `counts` times."""

    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    counts: NDArray[np.int32]

    def values(self) -> NDArray[np.float32]:
        """log(1 + count), divided by its row's length (L2), so that long texts weigh no more than short ones."""
        raw = np.log1p(self.counts.astype(np.float64))
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        norms = np.sqrt(np.bincount(rows, raw**2, len(self.starts) - 1))
        return np.asarray(raw / norms[rows], dtype=np.float32)


def counter(shape: Shape) -> Proven[Counts]:
    """The function that counts, compiled where numba is installed and it gives the same."""
    try:
        from smelt.corpus.classifier.compiled import fast_counts
    except ImportError:
        return Proven("classifier", lambda texts: plain_counts(shape, texts), None, _same)
    return Proven(
        "classifier", lambda texts: plain_counts(shape, texts), lambda texts: fast_counts(shape, texts), _same
    )


def plain_counts(shape: Shape, texts: Sequence[str]) -> Counts:
    """The definition, as it reads."""
    rows = [sorted(Counter(_buckets(shape, text)).items()) for text in texts]
    pairs = [pair for row in rows for pair in row]
    return Counts(
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([bucket for bucket, _ in pairs], dtype=np.int32),
        np.array([count for _, count in pairs], dtype=np.int32),
    )


def _buckets(shape: Shape, text: str) -> list[int]:
    words = WORD.findall(text.lower())
    hashes = [_hash(map(ord, word), WORD_SEED) for word in words]
    found = []
    for first in range(len(words)):
        joined = 0
        for value in hashes[first : first + shape.words]:
            joined = (joined * JOIN + value) & MASK
            found.append(joined)
    if shape.characters:
        fewest, most = shape.characters
        for word in words:
            marked = [OPEN, *map(ord, word), CLOSE]
            for length in range(fewest, most + 1):
                starts = range(len(marked) - length + 1)
                found += [_hash(marked[start : start + length], CHARACTER_SEED) for start in starts]
    return [(value ^ (value >> 32)) % shape.buckets for value in found]


def _hash(characters: "Sequence[int] | map[int]", seed: int) -> int:
    """FNV-1a over code points instead of bytes."""
    for character in characters:
        seed = ((seed ^ character) * PRIME) & MASK
    return seed


def _same(one: Counts, other: Counts) -> bool:
    return all(np.array_equal(mine, its) for mine, its in zip(one, other, strict=True))
