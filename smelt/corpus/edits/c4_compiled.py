"""`c4_lines.edit` as a compiled loop over the characters of a text; it needs numba."""

import numpy as np

from smelt.corpus.edits.c4_lines import CLOSING, CONDEMNED, POLICIES, SCRIPT
from smelt.corpus.filters.characters import BREAK, SPACE, encode, flags
from smelt.corpus.filters.compiled.text import Codes, compiled, ends_with_ellipsis, line_after, spells
from smelt.recipe.sections.edits import C4Lines

_NEWLINE, _BRACKET, _CITATION = ord("\n"), ord("{"), ord("[")
_KEPT, _UNSURE = -1, -2
_CLOSING = encode(CLOSING).codes
_PHRASES = encode((CONDEMNED, SCRIPT, *POLICIES))
_INITIALS = np.zeros(128, np.bool_)
for _phrase in (CONDEMNED, SCRIPT, *POLICIES):
    _INITIALS[[ord(_phrase[0]), ord(_phrase[0].upper())]] = True


def segments(codes: Codes, section: C4Lines) -> tuple[list[int], list[int], list[bool], list[int]]:
    """Where pieces of kept text start and end (whole lines, from one line on to another), whether a piece is a line
    that only Python can judge, and how many lines went for each of `REASONS`."""
    longest = len(codes) if section.max_word_length is None else section.max_word_length
    switches = (section.punctuation, section.min_words, longest, section.citations, section.javascript, section.policy)
    table = flags()
    bounds, count, dropped = _segments(codes, table, _PHRASES.codes, _PHRASES.starts, switches)
    starts, ends, unsure = bounds[:, :count].tolist()
    return starts, ends, unsure, dropped.tolist()


@compiled
def _segments(codes, flags, phrases, phrase_starts, switches):  # type: ignore[no-untyped-def]
    dropped = np.zeros(5, np.int64)
    bounds = np.empty((3, 64), np.int64)
    count = line = 0
    while line < len(codes):
        line_end = line
        while line_end < len(codes) and not flags[codes[line_end]] & BREAK:
            line_end += 1
        start, end = line, line_end
        while start < end and flags[codes[start]] & SPACE:
            start += 1
        while end > start and flags[codes[end - 1]] & SPACE:
            end -= 1
        verdict = _judge(codes, start, end, flags, phrases, phrase_starts, switches)
        if verdict >= 0:
            dropped[verdict] += start < end
        elif verdict == _KEPT and count and not bounds[2, count - 1] and _follows(codes, bounds[1, count - 1], start):
            bounds[1, count - 1] = end
        else:
            if count == bounds.shape[1]:
                longer = np.empty((3, 2 * count), np.int64)
                longer[:, :count] = bounds
                bounds = longer
            bounds[0, count], bounds[1, count], bounds[2, count] = start, end, verdict == _UNSURE
            count += 1
        if line_end == len(codes):
            break
        line = line_after(codes, line_end, len(codes))
    return bounds, count, dropped


@compiled
def _follows(codes, end, start):  # type: ignore[no-untyped-def]
    """Whether nothing but a line end stands between."""
    return start == end + 1 and codes[end] == _NEWLINE


@compiled
def _judge(codes, start, end, flags, phrases, phrase_starts, switches):  # type: ignore[no-untyped-def]
    """The index of the reason for which a line goes, or that it is kept, or may hold a citation."""
    punctuation, min_words, max_word_length, citations, javascript, policy = switches
    words, word, marked = 0, start, False
    for at in range(start, end + 1):
        if at == end or flags[codes[at]] & SPACE:
            if at - word > max_word_length:
                return 0
            words += at > word
            word = at + 1
        elif codes[at] == _CITATION:
            marked = True
    if marked and citations:
        return _UNSURE
    if punctuation and not _closed(codes, start, end):
        return 1
    if words < min_words:
        return 2
    condemned, script, policies, bracket = _phrases(codes, start, end, phrases, phrase_starts)
    if condemned:
        return _KEPT
    if javascript and script:
        return 3
    if policy and policies and not bracket:
        return 4
    return _KEPT


@compiled
def _closed(codes, start, end):  # type: ignore[no-untyped-def]
    if end == start or ends_with_ellipsis(codes, start, end):
        return False
    closed = False
    for each in range(len(_CLOSING)):
        closed |= codes[end - 1] == _CLOSING[each]
    return closed


@compiled
def _phrases(codes, start, end, phrases, phrase_starts):  # type: ignore[no-untyped-def]
    """Whether the line has placeholder text, JavaScript, a phrase of a policy, a curly bracket."""
    condemned = script = policies = bracket = False
    for at in range(start, end):
        code = codes[at]
        if code == _BRACKET:
            bracket = True
        elif code < 128 and _INITIALS[code]:
            for each in range(len(phrase_starts) - 1):
                if spells(codes, at, end, phrases, phrase_starts[each], phrase_starts[each + 1]):
                    condemned |= each == 0
                    script |= each == 1
                    policies |= each > 1
    return condemned, script, policies, bracket
