"""MinHash signatures for locality-sensitive hashing: one hash a band, equal for texts whose word n-grams mostly agree.

Two texts of Jaccard similarity s share a band with probability 1 - (1 - s^rows)^bands (Broder 1997; Leskovec et al.,
Mining of Massive Datasets, chapter 3); `rows` hash functions make a band.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.ngrams import BASE, joined, mixed, run_hashes, table, word_hashes
from smelt.corpus.proven import Proven
from smelt.recipe.sections.duplicates import MinHash

Signatures = NDArray[np.uint64]


def signatures(section: MinHash, texts: Sequence[str]) -> Signatures:
    """A hash of each band of each text's minima: uint64 [texts, bands], 0 where a text has no words.

    A text of fewer than `ngram` words is one shingle.
    """
    return _proven(section.ngram, section.bands, section.rows)(texts)


def functions(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factors (odd) and terms of `count` permutations of the 32-bit numbers, always the same ones."""
    drawn = mixed(np.arange(1, 2 * count + 1, dtype=np.uint64) * np.uint64(BASE))
    return (drawn[:count] >> np.uint64(32)).astype(np.uint32) | np.uint32(1), drawn[count:].astype(np.uint32)


def plain(texts: Sequence[str], ngram: int, bands: int, rows: int) -> Signatures:
    """The signatures, computed as they are defined."""
    factors, terms = functions(bands * rows)
    found = np.zeros((len(texts), bands), np.uint64)
    for number, text in enumerate(texts):
        hashes = word_hashes(text)
        if len(hashes):
            shingles = (run_hashes(hashes, min(ngram, len(hashes))) >> np.uint64(32)).astype(np.uint32)
            least = (shingles[:, None] * factors + terms).min(axis=0)
            found[number] = _banded(least[None], bands)[0]
    return found


def fast(texts: Sequence[str], ngram: int, bands: int, rows: int) -> Signatures:
    """The signatures, compiled."""
    from smelt.corpus import ngram_kernels

    hashes, ends = ngram_kernels.word_hashes(*joined(texts), table())
    least = ngram_kernels.minima(hashes, ends, ngram, *functions(bands * rows))
    return np.where(np.diff(ends, prepend=0)[:, None] > 0, _banded(least, bands), np.uint64(0))


def _banded(least: NDArray[np.uint32], bands: int) -> Signatures:
    """Hash the minima of each band with its number: [texts, functions] -> [texts, bands]."""
    total = np.zeros((len(least), bands), np.uint64)
    total += np.arange(1, bands + 1, dtype=np.uint64)
    for row in least.reshape(len(least), bands, least.shape[1] // bands).transpose(2, 0, 1):
        total = mixed(total * np.uint64(BASE) + row)
    return np.maximum(total, np.uint64(1))


@cache
def _proven(ngram: int, bands: int, rows: int) -> Callable[[Sequence[str]], Signatures]:
    return Proven(
        "minhash",
        lambda texts: plain(texts, ngram, bands, rows),
        lambda texts: fast(texts, ngram, bands, rows),
        np.array_equal,
    )
