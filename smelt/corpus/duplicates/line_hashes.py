"""The lines of texts as numbers, to count and to look up: a hash of each line without the blanks around it."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.ngrams import joined, text_hash
from smelt.corpus.proven import Proven

Hashes = tuple[NDArray[np.uint64], NDArray[np.int64]]
_LAST_BLANK = 0x3000


def line_hashes(texts: Sequence[str], shortest: int) -> Hashes:
    """A hash of each line of all texts, uint64 [lines], and where each text's lines end, int64 [texts].

    A line of fewer than `shortest` characters, blanks around it not counted, is 0.
    """
    return _proven(shortest)(texts)


def plain(texts: Sequence[str], shortest: int) -> Hashes:
    """The hashes, computed as they are defined."""
    lines = [[line.strip() for line in text.split("\n")] for text in texts]
    hashes = [max(text_hash(line), 1) if len(line) >= shortest else 0 for each in lines for line in each]
    return np.array(hashes, np.uint64), np.cumsum([len(each) for each in lines], dtype=np.int64)


def fast(texts: Sequence[str], shortest: int) -> Hashes:
    """The hashes, compiled."""
    from smelt.corpus import ngram_kernels

    return ngram_kernels.line_hashes(*joined(texts), _blanks(), shortest)


@cache
def _blanks() -> NDArray[np.bool_]:
    """Which code points are blank: bool [code points]; none beyond them is."""
    return np.array([chr(code).isspace() for code in range(_LAST_BLANK + 1)])


@cache
def _proven(shortest: int) -> Callable[[Sequence[str]], Hashes]:
    return Proven("lines", lambda texts: plain(texts, shortest), lambda texts: fast(texts, shortest), _equal)


def _equal(one: Hashes, other: Hashes) -> bool:
    return all(map(np.array_equal, one, other))
