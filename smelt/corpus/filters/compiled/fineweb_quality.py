"""`fineweb_quality.measure` for a batch."""

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.characters import SPACE, TERMINAL, Batch, flags
from smelt.corpus.filters.compiled.repeats import repeated
from smelt.corpus.filters.compiled.text import compiled, ratio, word_end

_NEWLINE = 10


def measure_all(batch: Batch, short_line: int) -> NDArray[np.float64]:
    """[texts, columns]."""
    scores = np.zeros((len(batch.starts) - 1, 4))
    _measure(batch.codes, batch.starts, flags(), short_line, scores)
    return scores


@compiled
def _measure(codes, starts, flags, short_line, scores):  # type: ignore[no-untyped-def]
    for text in range(len(starts) - 1):
        start, end = starts[text], starts[text + 1]
        words, newlines = _words_and_newlines(codes, start, end, flags)
        line_starts, line_ends = _lines(codes, start, end, flags, newlines)
        lines = len(line_starts)
        punctuated = short = 0
        for line in range(lines):
            punctuated += flags[codes[line_ends[line] - 1]] & TERMINAL != 0
            short += line_ends[line] - line_starts[line] <= short_line
        characters = repeated(codes, line_starts, line_ends)[1]
        scores[text, 0] = ratio(punctuated, lines)
        scores[text, 1] = ratio(short, lines)
        scores[text, 2] = ratio(characters, end - start - newlines)
        scores[text, 3] = ratio(newlines, words)


@compiled
def _words_and_newlines(codes, start, end, flags):  # type: ignore[no-untyped-def]
    words, newlines, at = 0, 0, start
    while at < end:
        if flags[codes[at]] & SPACE:
            newlines += codes[at] == _NEWLINE
            at += 1
        else:
            words += 1
            at = word_end(codes, at, end, flags)
    return words, newlines


@compiled
def _lines(codes, start, end, flags, newlines):  # type: ignore[no-untyped-def]
    """Starts and ends of the lines that are not blank."""
    starts, ends = np.empty(newlines + 1, np.int64), np.empty(newlines + 1, np.int64)
    count, line, blank = 0, start, True
    for at in range(start, end + 1):
        if at == end or codes[at] == _NEWLINE:
            if not blank:
                starts[count], ends[count] = line, at
                count += 1
            line, blank = at + 1, True
        elif not flags[codes[at]] & SPACE:
            blank = False
    return starts[:count], ends[:count]
