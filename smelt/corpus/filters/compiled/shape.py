"""`shape.lengths` and `shape.symbols` for a batch."""

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.characters import (
    ALPHA,
    BREAK,
    BROKEN,
    CONTINUATION,
    DIGIT,
    MARK,
    SPACE,
    UPPER,
    WORD,
    Batch,
    flags,
)
from smelt.corpus.filters.compiled.text import compiled, line_after, ratio, word_end

_UNDERSCORE = ord("_")


def lengths_of_all(batch: Batch) -> NDArray[np.float64]:
    """[texts, columns]."""
    scores = np.zeros((len(batch.starts) - 1, 6))
    _lengths(batch.codes, batch.starts, flags(), scores)
    return scores


def symbols_of_all(batch: Batch) -> NDArray[np.float64]:
    """[texts, columns]."""
    scores = np.zeros((len(batch.starts) - 1, 4))
    _symbols(batch.codes, batch.starts, flags(), scores)
    return scores


@compiled
def _lengths(codes, starts, flags, scores):  # type: ignore[no-untyped-def]
    for text in range(len(starts) - 1):
        start, end = starts[text], starts[text + 1]
        words = lines = in_lines = longest_line = longest_word = 0
        line = at = start
        while at < end:
            flag = flags[codes[at]]
            if flag & BREAK:
                lines += 1
                in_lines += at - line
                longest_line = max(longest_line, at - line)
                at = line = line_after(codes, at, end)
            elif flag & SPACE:
                at += 1
            else:
                stop = word_end(codes, at, end, flags)
                words += 1
                longest_word = max(longest_word, stop - at)
                at = stop
        if line < end:
            lines += 1
            in_lines += end - line
            longest_line = max(longest_line, end - line)
        scores[text, 0], scores[text, 1], scores[text, 2] = end - start, words, lines
        scores[text, 3] = ratio(in_lines, lines)
        scores[text, 4], scores[text, 5] = longest_line, longest_word


@compiled
def _symbols(codes, starts, flags, scores):  # type: ignore[no-untyped-def]
    for text in range(len(starts) - 1):
        start, end = starts[text], starts[text + 1]
        visible = symbols = digits = letters = capitals = broken = 0
        misread_end = start
        for at in range(start, end):
            code = codes[at]
            flag = flags[code]
            visible += flag & SPACE == 0
            symbols += flag & (SPACE | MARK | WORD) == 0 or code == _UNDERSCORE
            digits += flag & DIGIT != 0
            letters += flag & ALPHA != 0
            capitals += flag & UPPER != 0
            if at >= misread_end:
                length = _misread(codes, at, end, flags)
                misread_end = at + length
                broken += length if length else flag & BROKEN != 0
        scores[text, 0], scores[text, 1] = ratio(symbols, visible), ratio(digits, visible)
        scores[text, 2], scores[text, 3] = ratio(capitals, letters), ratio(broken, end - start)


@compiled
def _misread(codes, at, end, flags):  # type: ignore[no-untyped-def]
    """How many signs from `at` are the bytes of one character of UTF-8, read as if each were one; 0 if they are not."""
    lead = codes[at]
    if lead < 0xC2 or lead > 0xF4:
        return 0
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if at + length > end:
        return 0
    for later in range(at + 1, at + length):
        if not flags[codes[later]] & CONTINUATION:
            return 0
    return length
