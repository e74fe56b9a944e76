"""`c4_quality.measure` for a batch, in one pass a document."""

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.c4_quality import LOREM_IPSUM
from smelt.corpus.filters.characters import (
    BREAK,
    CLOSER,
    SPACE,
    SPACED_TERMINAL,
    TERMINAL,
    WORD,
    Batch,
    encode,
    flags,
)
from smelt.corpus.filters.compiled.text import compiled, spells

_BRACKET, _L, _SMALL_L = ord("{"), ord("L"), ord("l")


def measure_all(batch: Batch) -> NDArray[np.float64]:
    """[texts, columns]."""
    scores = np.zeros((len(batch.starts) - 1, 3))
    _measure(batch.codes, batch.starts, flags(), encode([LOREM_IPSUM]).codes, scores)
    return scores


@compiled
def _measure(codes, starts, flags, lorem_ipsum, scores):  # type: ignore[no-untyped-def]
    for text in range(len(starts) - 1):
        start, end = starts[text], starts[text + 1]
        lorem = brackets = 0
        next_lorem = start
        for at in range(start, end):
            code = codes[at]
            brackets += code == _BRACKET
            initial = code in (_SMALL_L, _L) and at >= next_lorem
            if initial and spells(codes, at, end, lorem_ipsum, 0, len(lorem_ipsum)):
                lorem += 1
                next_lorem = at + len(lorem_ipsum)
        scores[text, 0] = lorem
        scores[text, 1] = brackets
        scores[text, 2] = _sentences(codes, start, end, flags)


@compiled
def _sentences(codes, start, end, flags):  # type: ignore[no-untyped-def]
    sentences, worded, at = 0, False, start
    while at < end:
        flag = flags[codes[at]]
        at += 1
        if flag & WORD:
            worded = True
        elif flag & BREAK:
            sentences += worded
            worded = False
        elif flag & (TERMINAL | SPACED_TERMINAL):
            spaced = flag & SPACED_TERMINAL
            while at < end and _terminal(flags[codes[at]], spaced):
                at += 1
            closed = at
            while closed < end and flags[codes[closed]] & CLOSER:
                closed += 1
            if not spaced or closed == end or flags[codes[closed]] & SPACE:
                sentences += worded
                worded = False
                at = closed
    return sentences + worded


@compiled
def _terminal(flag, spaced):  # type: ignore[no-untyped-def]
    """Whether the sign is of the same of both kinds of terminals."""
    if spaced:
        return flag & SPACED_TERMINAL != 0
    return flag & TERMINAL != 0 and flag & SPACED_TERMINAL == 0
