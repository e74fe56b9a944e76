"""`gopher_quality.measure` for a batch, in two passes a document: over its lines, and over its words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.characters import ALPHA, BREAK, SIGN, SPACE, Batch, encode, flags
from smelt.corpus.filters.compiled.text import compiled, ends_with_ellipsis, line_after, ratio, word_end

_HASH, _STOP, _ELLIPSIS, _BULLET, _HYPHEN = ord("#"), ord("."), ord("\u2026"), ord("\u2022"), ord("-")


def measure_all(batch: Batch, stop_words: Sequence[str]) -> NDArray[np.float64]:
    """[texts, columns]."""
    stops = encode(stop_words)
    scores = np.zeros((len(batch.starts) - 1, 8))
    _measure(batch.codes, batch.starts, flags(), stops.codes, stops.starts, scores)
    return scores


@compiled
def _measure(codes, starts, flags, stop_codes, stop_starts, scores):  # type: ignore[no-untyped-def]
    found = np.zeros(len(stop_starts) - 1, np.bool_)
    for text in range(len(starts) - 1):
        start, end = starts[text], starts[text + 1]
        hashes, ellipses, lines, bullets, trailing = _lines(codes, start, end, flags)
        found[:] = False
        words, named, length, alphabetic = _words(codes, start, end, flags, stop_codes, stop_starts, found)
        scores[text, 0] = named
        scores[text, 1] = ratio(length, named)
        scores[text, 2] = ratio(hashes, words)
        scores[text, 3] = ratio(ellipses, words)
        scores[text, 4] = ratio(bullets, lines)
        scores[text, 5] = ratio(trailing, lines)
        scores[text, 6] = ratio(alphabetic, words)
        scores[text, 7] = found.sum()


@compiled
def _lines(codes, start, end, flags):  # type: ignore[no-untyped-def]
    """Hash signs, ellipses, lines, lines that begin with a bullet, lines that end with an ellipsis."""
    hashes = ellipses = lines = bullets = trailing = stops = 0
    line, first, last, at = start, -1, -1, start
    while at < end:
        code = codes[at]
        flag = flags[code]
        stops = stops + 1 if code == _STOP else 0
        if stops == 3:
            ellipses += 1
            stops = 0
        elif code == _ELLIPSIS:
            ellipses += 1
        elif code == _HASH:
            hashes += 1
        if not flag & SPACE:
            first, last = at if first < 0 else first, at
        if flag & BREAK or at + 1 == end:
            lines += 1
            if first >= 0:
                bullets += codes[first] == _BULLET or codes[first] == _HYPHEN
                trailing += codes[last] == _ELLIPSIS or ends_with_ellipsis(codes, line, last + 1)
            at = line = line_after(codes, at, end)
            first = -1
        else:
            at += 1
    return hashes, ellipses, lines, bullets, trailing


@compiled
def _words(codes, start, end, flags, stop_codes, stop_starts, found):  # type: ignore[no-untyped-def]
    """Words, those not of punctuation alone, characters in those, words with a letter; marks the stop words `found`."""
    words = named = length = alphabetic = 0
    at = start
    while at < end:
        if flags[codes[at]] & SPACE:
            at += 1
            continue
        stop = word_end(codes, at, end, flags)
        letter = name = False
        for inside in range(at, stop):
            flag = flags[codes[inside]]
            letter |= flag & ALPHA != 0
            name |= flag & SIGN == 0
        words += 1
        alphabetic += letter
        if name:
            named += 1
            length += stop - at
        for each in range(len(stop_starts) - 1):
            first = stop_starts[each]
            if stop - at == stop_starts[each + 1] - first and codes[at] == stop_codes[first]:
                same = True
                for step in range(1, stop - at):
                    same &= codes[at + step] == stop_codes[first + step]
                found[each] |= same
        at = stop
    return words, named, length, alphabetic
