"""What repeats in a text: hash tables that hold positions, and compare what stands there, so that no collision of
hashes changes a count."""

import numpy as np

from smelt.corpus.filters.characters import SPACE
from smelt.corpus.filters.compiled.text import compiled, word_end

_SEED = np.uint64(0xCBF29CE484222325)
BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


@compiled
def mixed(value):  # type: ignore[no-untyped-def]
    """A number whose low bits depend on all bits of another."""
    value = (value ^ (value >> _HALF)) * _MIX
    return value ^ (value >> _HALF)


@compiled
def empty_table(entries):  # type: ignore[no-untyped-def]
    """Slots for so many entries, at least half of which stay free; their number is a power of two."""
    size = 16
    while size < 2 * entries:
        size *= 2
    return np.full(size, -1, np.int64)


@compiled
def name_spans(codes, starts, ends, names):  # type: ignore[no-untyped-def]
    """Numbers spans of text in the order in which they first occur, equal ones alike; returns how many differ."""
    table = empty_table(len(starts))
    firsts, hashes = np.empty(len(starts), np.int64), np.empty(len(starts), np.uint64)
    mask, count = len(table) - 1, 0
    for span in range(len(starts)):
        start, end = starts[span], ends[span]
        value = _SEED
        for at in range(start, end):
            value = (value ^ np.uint64(codes[at])) * BASE
        value = mixed(value)
        slot = np.int64(value) & mask
        while True:
            name = table[slot]
            if name < 0:
                table[slot] = names[span] = count
                firsts[count], hashes[count] = span, value
                count += 1
                break
            first = firsts[name]
            if hashes[name] == value and _same(codes, start, end, starts[first], ends[first]):
                names[span] = name
                break
            slot = (slot + 1) & mask
    return count


@compiled
def _same(codes, start, end, other, other_end):  # type: ignore[no-untyped-def]
    if end - start != other_end - other:
        return False
    while start < end and codes[start] == codes[other]:
        start, other = start + 1, other + 1
    return start == end


@compiled
def repeated(codes, starts, ends):  # type: ignore[no-untyped-def]
    """How many spans stood earlier already, and their characters."""
    names = np.empty(len(starts), np.int64)
    seen = np.zeros(name_spans(codes, starts, ends, names), np.bool_)
    again = characters = 0
    for span in range(len(starts)):
        if seen[names[span]]:
            again += 1
            characters += ends[span] - starts[span]
        seen[names[span]] = True
    return again, characters


@compiled
def word_spans(codes, start, end, flags):  # type: ignore[no-untyped-def]
    """Starts and ends of all words."""
    count, at = 0, start
    while at < end:
        if flags[codes[at]] & SPACE:
            at += 1
        else:
            at = word_end(codes, at, end, flags)
            count += 1
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    count, at = 0, start
    while at < end:
        if flags[codes[at]] & SPACE:
            at += 1
        else:
            starts[count] = at
            at = ends[count] = word_end(codes, at, end, flags)
            count += 1
    return starts, ends
