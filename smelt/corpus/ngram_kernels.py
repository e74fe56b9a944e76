"""The hot loops of deduplication and decontamination, compiled: from code points to word hashes, MinHash and matches.

They compute what `smelt.corpus.ngrams` and its users state plainly; numba is needed to import this module.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from smelt.corpus.ngrams import ALONE, BASE, MIX, OFFSET, PRIME, SEPARATOR, SKIPPED

_OFFSET, _PRIME, _BASE, _MIX = np.uint64(OFFSET), np.uint64(PRIME), np.uint64(BASE), np.uint64(MIX)
_ALONE, _LETTER = np.uint32(ALONE), np.uint32(ALONE - 1)
_S29, _S32, _S33 = np.uint64(29), np.uint64(32), np.uint64(33)


@numba.njit(cache=True, inline="always")
def _mixed(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> _S33)) * _MIX
    value = (value ^ (value >> _S29)) * _BASE
    return value ^ (value >> _S32)


@numba.njit(cache=True, inline="always")
def _finished(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> _S32)) * _MIX
    return value ^ (value >> _S29)


@numba.njit(cache=True)
def word_hashes(
    codes: NDArray[np.uint32], ends: NDArray[np.int64], table: NDArray[np.uint32]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the words of all texts, one after the other, and where each text's words end: int64 [texts]."""
    hashes = np.empty(len(codes), np.uint64)
    word_ends = np.empty(len(ends), np.int64)
    count, position = 0, 0
    for text in range(len(ends)):
        value, inside = _OFFSET, False
        while position < ends[text]:
            code = codes[position]
            position += 1
            letter = table[code] if code < len(table) else np.uint32(SEPARATOR)
            if letter == SKIPPED:
                continue
            if inside and (letter == SEPARATOR or letter & _ALONE):
                hashes[count] = _finished(value)
                count += 1
                value, inside = _OFFSET, False
            if letter & _ALONE:
                hashes[count] = _finished((_OFFSET ^ np.uint64(letter & _LETTER)) * _PRIME)
                count += 1
            elif letter != SEPARATOR:
                value, inside = (value ^ np.uint64(letter)) * _PRIME, True
        if inside:
            hashes[count] = _finished(value)
            count += 1
        word_ends[text] = count
    return hashes[:count].copy(), word_ends


@numba.njit(cache=True)
def line_hashes(
    codes: NDArray[np.uint32], ends: NDArray[np.int64], blank: NDArray[np.bool_], shortest: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the lines of all texts, 0 for those of under `shortest` characters, and where each text's lines end."""
    hashes = np.zeros(len(ends) + np.sum(codes == np.uint32(10)), np.uint64)
    line_ends = np.empty(len(ends), np.int64)
    count, first = 0, 0
    for text in range(len(ends)):
        for position in range(first, ends[text] + 1):
            if position < ends[text] and codes[position] != 10:
                continue
            last = position
            while first < last and codes[first] < len(blank) and blank[codes[first]]:
                first += 1
            while first < last and codes[last - 1] < len(blank) and blank[codes[last - 1]]:
                last -= 1
            if last - first >= shortest:
                value = _OFFSET
                for each in range(first, last):
                    value = (value ^ np.uint64(codes[each])) * _PRIME
                hashes[count] = max(_finished(value), np.uint64(1))
            count += 1
            first = position + 1
        first = ends[text]
        line_ends[text] = count
    return hashes, line_ends


@numba.njit(cache=True)
def minima(
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
    ngram: int,
    factors: NDArray[np.uint32],
    terms: NDArray[np.uint32],
) -> NDArray[np.uint32]:
    """The least value of each hash function over each text's shingles: uint32 [texts, functions]."""
    functions = len(factors)
    least = np.full((len(ends), functions), np.uint32(0xFFFFFFFF))
    first = 0
    for text in range(len(ends)):
        length = min(ngram, ends[text] - first)
        row = least[text]
        outgoing = np.uint64(1)
        for _ in range(length):
            outgoing *= _BASE
        total = np.uint64(0)
        for position in range(first, ends[text]):
            total = total * _BASE + hashes[position]
            if position - first >= length:
                total -= outgoing * hashes[position - length]
            if position - first >= length - 1:
                shingle = np.uint32(_mixed(total ^ np.uint64(length)) >> _S32)
                for function in range(functions):
                    value = np.uint32(shingle * factors[function] + terms[function])
                    row[function] = min(row[function], value)
        first = ends[text]
    return least


@numba.njit(cache=True)
def matches(
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
    lengths: NDArray[np.int64],
    protected: NDArray[np.uint64],
    bitmap: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How many runs of each text are in `protected` (sorted), and the first one: its first word and its length.

    `bitmap` has a bit for each value of a protected hash's lowest bits; its size is a power of two.
    """
    low = np.uint64(len(bitmap) * 64 - 1)
    counts = np.zeros(len(ends), np.int64)
    places, sizes = np.full(len(ends), -1), np.zeros(len(ends), np.int64)
    prefix = np.zeros(len(hashes) + 1, np.uint64)
    for position in range(len(hashes)):
        prefix[position + 1] = prefix[position] * _BASE + hashes[position]
    for length in lengths:
        outgoing = np.uint64(1)
        for _ in range(length):
            outgoing *= _BASE
        first = 0
        for text in range(len(ends)):
            for position in range(first, ends[text] - length + 1):
                total = prefix[position + length] - prefix[position] * outgoing
                run = _mixed(total ^ np.uint64(length))
                bit = run & low
                if not (bitmap[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
                    continue
                found = np.searchsorted(protected, run)
                if found < len(protected) and protected[found] == run:
                    counts[text] += 1
                    if places[text] < 0:
                        places[text], sizes[text] = position - first, length
            first = ends[text]
    return counts, places, sizes
