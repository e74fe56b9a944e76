"""Text as arrays: the characters of many texts in one buffer, and what Python knows of every character as a table of
flags, so that compiled loops and Python agree by construction."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.signs import (
    ASSIGNED,
    BREAKS,
    CLOSERS,
    CONTINUATIONS,
    IDEOGRAPHS,
    PUNCTUATION,
    SPACED_TERMINALS,
    TERMINALS,
    is_broken,
    is_mark,
)

SPACE = 1  # str.isspace
BREAK = 2  # where str.splitlines breaks
BASE = 4  # starts a word of many characters
MARK = 8  # continues one
WORD = 16  # \w: a letter, a digit, an underscore
ALPHA = 32
DIGIT = 64
UPPER = 128
SIGN = 256  # punctuation to Gopher's rules
TERMINAL = 512
SPACED_TERMINAL = 1024
CLOSER = 2048
BROKEN = 4096  # replaced, control, private or no character at all
CONTINUATION = 8192
IDEOGRAPH = 16384


@dataclass(frozen=True)
class Batch:
    """`codes` uint32 [characters]: all texts, one after another; `starts` int64 [texts + 1]: where each begins."""

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]


def encode(texts: Sequence[str]) -> Batch:
    """The texts as code points; lone surrogates stay what they are."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=starts[1:])
    return Batch(codes, starts)


@cache
def flags() -> NDArray[np.uint16]:
    """What each code point is: [0x110000], the sum of the constants above."""
    codes = np.array([ord(char) for char in ASSIGNED])
    table = np.zeros(len(codes), np.uint16)
    for flag, test in ((SPACE, str.isspace), (ALPHA, str.isalpha), (DIGIT, str.isdecimal), (UPPER, str.isupper)):
        table |= _where(test) * np.uint16(flag)
    word = _where(str.isalnum) | (codes == ord("_"))
    ideograph = np.zeros(len(codes), bool)
    for first, last in zip(IDEOGRAPHS[::3], IDEOGRAPHS[2::3], strict=True):
        ideograph |= (codes >= ord(first)) & (codes <= ord(last))
    table |= word * np.uint16(WORD) | (word & ~ideograph) * np.uint16(BASE)
    table |= ideograph * np.uint16(IDEOGRAPH)
    table |= _where(is_mark) * np.uint16(MARK) | _where(is_broken) * np.uint16(BROKEN)
    every = np.full(sys.maxunicode + 1, BROKEN, np.uint16)  # what is not listed is private or unassigned
    every[codes] = table
    for flag, signs in (
        (BREAK, BREAKS),
        (SIGN, PUNCTUATION),
        (TERMINAL, TERMINALS),
        (SPACED_TERMINAL, SPACED_TERMINALS),
        (CLOSER, CLOSERS),
        (CONTINUATION, CONTINUATIONS),
    ):
        every[[ord(char) for char in signs]] |= np.uint16(flag)
    return every


def _where(test: Callable[[str], bool]) -> NDArray[np.bool_]:
    return np.fromiter(map(test, ASSIGNED), bool, len(ASSIGNED))
