"""`gopher_repetition.measure` for a batch: lines and paragraphs by their characters, most frequent n-grams by the
numbers of their words, repeated n-grams by rolling hashes of their characters."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.characters import SPACE, Batch, flags
from smelt.corpus.filters.compiled.repeats import BASE, empty_table, mixed, name_spans, repeated, word_spans
from smelt.corpus.filters.compiled.text import compiled, ratio

_NEWLINE = 10
_POWERS = 4096  # longer n-grams work theirs out


def measure_all(batch: Batch, top: Sequence[int], duplicate: Sequence[int]) -> NDArray[np.float64]:
    """[texts, columns]."""
    scores = np.zeros((len(batch.starts) - 1, 4 + len(top) + len(duplicate)))
    powers = np.full(_POWERS, BASE, np.uint64)
    powers[0] = 1
    powers = np.multiply.accumulate(powers)
    sizes = np.array(top, np.int64), np.array(duplicate, np.int64)
    _measure(batch.codes, batch.starts, flags(), *sizes, powers, scores)
    return scores


@compiled
def _measure(codes, starts, flags, top, duplicate, powers, scores):  # type: ignore[no-untyped-def]
    for text in range(len(starts) - 1):
        start, end = starts[text], starts[text + 1]
        length = end - start
        first, last = start, end  # without white space around
        while first < end and flags[codes[first]] & SPACE:
            first += 1
        while last > first and flags[codes[last - 1]] & SPACE:
            last -= 1
        for column, (a, b, least) in enumerate(((first, last, 2), (start, end, 1))):
            span_starts, span_ends = _split(codes, a, b, least)
            again, characters = repeated(codes, span_starts, span_ends)
            scores[text, 2 * column] = ratio(again, len(span_starts))
            scores[text, 2 * column + 1] = ratio(characters, length)
        word_starts, word_ends = word_spans(codes, start, end, flags)
        _most_frequent(codes, word_starts, word_ends, top, length, scores[text, 4:])
        hashes, offsets = _prefixes(codes, word_starts, word_ends)
        for each in range(len(duplicate)):
            characters = _in_repeated(codes, word_starts, word_ends, hashes, offsets, powers, flags, duplicate[each])
            scores[text, 4 + len(top) + each] = ratio(characters, length)


@compiled
def _split(codes, start, end, least):  # type: ignore[no-untyped-def]
    """Starts and ends of what stands between runs of at least so many line ends, empty ones at either end included."""
    count = 1
    for at in range(start, end):
        count += codes[at] == _NEWLINE
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    count, at = 0, start
    starts[0] = start
    while at < end:
        run = at
        while run < end and codes[run] == _NEWLINE:
            run += 1
        if run - at >= least:
            ends[count] = at
            count += 1
            starts[count] = run
        at = max(run, at + 1)
    ends[count] = end
    return starts[: count + 1], ends[: count + 1]


@compiled
def _most_frequent(codes, word_starts, word_ends, sizes, length, scores):  # type: ignore[no-untyped-def]
    """The share of the most frequent n-gram for each of `sizes`, which ascend. An n-gram is named by the names of its
    first n - 1 words and of its last."""
    words = len(word_starts)
    if len(sizes) == 0 or words == 0:
        return
    word_names, names = np.empty(words, np.int64), np.empty(words, np.int64)
    name_spans(codes, word_starts, word_ends, word_names)
    names[:] = word_names
    each = 0
    for n in range(1, min(sizes[-1], words) + 1):
        if n > 1:
            _name_longer(names[: words - n + 1], word_names[n - 1 :])
        if n == sizes[each]:
            scores[each] = ratio(_most(names[: words - n + 1], word_starts, word_ends, n), length)
            each += 1


@compiled
def _name_longer(names, last_words):  # type: ignore[no-untyped-def]
    """Replaces the names of (n - 1)-grams by those of n-grams, in the order in which these first occur."""
    table = empty_table(len(names))
    keys = np.empty(len(names), np.uint64)
    mask, count = len(table) - 1, 0
    for at in range(len(names)):
        key = np.uint64(names[at]) << np.uint64(32) | np.uint64(last_words[at])
        slot = np.int64(mixed(key)) & mask
        while table[slot] >= 0 and keys[table[slot]] != key:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot], keys[count] = count, key
            count += 1
        names[at] = table[slot]


@compiled
def _most(names, word_starts, word_ends, n):  # type: ignore[no-untyped-def]
    """Characters of the most frequent n-gram, with a space between its words, times its count."""
    counts = np.zeros(len(names), np.int64)
    firsts = np.empty(len(names), np.int64)
    for at in range(len(names)):
        if counts[names[at]] == 0:
            firsts[names[at]] = at
        counts[names[at]] += 1
    best = np.argmax(counts)
    characters = n - 1
    for word in range(firsts[best], firsts[best] + n):
        characters += word_ends[word] - word_starts[word]
    return characters * counts[best]


@compiled
def _prefixes(codes, word_starts, word_ends):  # type: ignore[no-untyped-def]
    """Before each word and at the end: a polynomial hash of all characters of words so far, and their number."""
    hashes, offsets = np.zeros(len(word_starts) + 1, np.uint64), np.zeros(len(word_starts) + 1, np.int64)
    value = np.uint64(0)
    for word in range(len(word_starts)):
        for at in range(word_starts[word], word_ends[word]):
            value = value * BASE + np.uint64(codes[at]) + np.uint64(1)
        hashes[word + 1] = value
        offsets[word + 1] = offsets[word] + word_ends[word] - word_starts[word]
    return hashes, offsets


@compiled
def _in_repeated(codes, word_starts, word_ends, hashes, offsets, powers, flags, n):  # type: ignore[no-untyped-def]
    table = empty_table(len(word_starts))
    mask, characters, word = len(table) - 1, 0, 0
    while word + n <= len(word_starts):
        length = offsets[word + n] - offsets[word]
        value = _hash(hashes, offsets, powers, word, n)
        slot = np.int64(mixed(value)) & mask
        while table[slot] >= 0:
            other = table[slot]
            if (
                offsets[other + n] - offsets[other] == length
                and _hash(hashes, offsets, powers, other, n) == value
                and _same_characters(codes, word_starts[word], word_starts[other], length, flags)
            ):
                break
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = word
            word += 1
        else:
            characters += length
            word += n
    return characters


@compiled
def _hash(hashes, offsets, powers, word, n):  # type: ignore[no-untyped-def]
    length = offsets[word + n] - offsets[word]
    power = powers[min(length, len(powers) - 1)]
    for _ in range(len(powers) - 1, length):
        power *= BASE
    return hashes[word + n] - hashes[word] * power


@compiled
def _same_characters(codes, at, other, length, flags):  # type: ignore[no-untyped-def]
    """Whether so many characters from two places on are the same, white space aside."""
    for _ in range(length):
        while flags[codes[at]] & SPACE:
            at += 1
        while flags[codes[other]] & SPACE:
            other += 1
        if codes[at] != codes[other]:
            return False
        at, other = at + 1, other + 1
    return True
