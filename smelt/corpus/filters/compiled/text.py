"""What compiled loops share: where words, lines and phrases are, as `splitter` and `str` find them."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.characters import BASE, IDEOGRAPH, MARK

Codes = NDArray[np.uint32]
_APOSTROPHE, _QUOTE, _STOP = ord("'"), ord("\u2019"), ord(".")
_KELVIN = ord("\u212a")  # beside A-Z the only sign whose lower case is an ASCII letter


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled when it is first called, and kept for later processes where there is a folder to keep it in."""
    try:
        kept: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        kept = numba.njit(nogil=True)(function)
    return kept


@compiled
def word_end(codes, start, end, flags):  # type: ignore[no-untyped-def]
    """Where the word that begins at `start`, which is no white space, ends."""
    first = codes[start]
    at = start + 1
    if flags[first] & BASE:
        while True:
            while at < end and flags[codes[at]] & (BASE | MARK):
                at += 1
            joined = at + 1 < end and codes[at] in (_APOSTROPHE, _STOP, _QUOTE)
            if not (joined and flags[codes[at + 1]] & BASE):
                return at
            at += 2
    if not flags[first] & IDEOGRAPH:
        while at < end and codes[at] == first:
            at += 1
    return at


@compiled
def line_after(codes, line_end, end):  # type: ignore[no-untyped-def]
    """Where the line after the break at `line_end` begins."""
    pair = codes[line_end] == 13 and line_end + 1 < end and codes[line_end + 1] == 10
    return line_end + (2 if pair else 1)


@compiled
def spells(codes, start, end, phrases, first, last):  # type: ignore[no-untyped-def]
    """Whether the text in lower case goes on at `start` with the phrase from `first` to `last`, which is ASCII in lower
    case."""
    if start + last - first > end:
        return False
    for step in range(last - first):
        code = codes[start + step]
        if 65 <= code <= 90:
            code += np.uint32(32)
        elif code == _KELVIN:
            code = np.uint32(107)
        if code != phrases[first + step]:
            return False
    return True


@compiled
def ends_with_ellipsis(codes, start, end):  # type: ignore[no-untyped-def]
    """Whether the text from `start` to `end` ends with three full stops."""
    return end - start >= 3 and codes[end - 1] == _STOP and codes[end - 2] == _STOP and codes[end - 3] == _STOP


@compiled
def ratio(part, whole):  # type: ignore[no-untyped-def]
    """As `measured.share`."""
    return part / whole if whole else 0.0
