"""Words as deduplication and decontamination compare them, and hashes of runs of them.

Case, accents, punctuation and spacing make no difference; each Chinese or Japanese character is a word of its own.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

SEPARATOR, SKIPPED = 0, 1  # of the table; any other value is what a character becomes
ALONE = 1 << 31  # set on characters that are words by themselves
OFFSET, PRIME = 0xCBF29CE484222325, 0x100000001B3  # FNV-1a, 64 bits
BASE, MIX = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD
_MASK = (1 << 64) - 1
_PLANES = 0x40000  # beyond them no letters are assigned
_APOSTROPHES = "'\u2019\u02bc\uff07"
_IDEOGRAPHS = ("CJK ", "HIRAGANA", "KATAKANA")


def words(text: str) -> list[str]:
    """Its words in order: runs of letters and digits, in lower case and without accents; apostrophes are left out."""
    return text.translate(_folding()).split()


def word_hashes(text: str) -> NDArray[np.uint64]:
    """A 64-bit hash of each word: uint64 [words]."""
    return np.array([text_hash(word) for word in words(text)], np.uint64)


def run_hashes(hashes: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A hash of each run of `length` words from the hashes of the words: uint64 [words - length + 1], or empty."""
    total = np.zeros(max(len(hashes) - length + 1, 0), np.uint64)
    for first in range(length):
        total = total * np.uint64(BASE) + hashes[first : first + len(total)]
    return mixed(total ^ np.uint64(length))


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each value scrambled so that every bit depends on every other (one to one)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(MIX)
    values = (values ^ (values >> np.uint64(29))) * np.uint64(BASE)
    return values ^ (values >> np.uint64(32))


def text_hash(text: str) -> int:
    """64 bits: FNV-1a of the code points, its halves mixed."""
    value = OFFSET
    for character in text:
        value = ((value ^ ord(character)) * PRIME) & _MASK
    value = ((value ^ (value >> 32)) * MIX) & _MASK
    return value ^ (value >> 29)


@cache
def table() -> NDArray[np.uint32]:
    """What each code point becomes: uint32 [0x40000]; code points beyond it are separators."""
    return np.array([_folded(chr(code)) for code in range(_PLANES)], np.uint32)


def joined(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Code points of all texts, one after the other, and where each text ends: int64 [texts]."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return codes, np.cumsum([len(text) for text in texts], dtype=np.int64)


class _Folding(dict[int, str | None]):
    def __missing__(self, code: int) -> str | None:
        value = _folded(chr(code)) if code < _PLANES else SEPARATOR
        if value == SKIPPED:
            text = None
        elif value == SEPARATOR:
            text = " "
        else:
            text = f" {chr(value ^ ALONE)} " if value & ALONE else chr(value)
        self[code] = text
        return text


_folding = cache(_Folding)


def _folded(character: str) -> int:
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Cf") or character in _APOSTROPHES:
        return SKIPPED
    if category[0] not in "LMN":
        return SEPARATOR
    lower = character.lower()
    bare = "".join(each for each in unicodedata.normalize("NFKD", lower) if unicodedata.category(each) != "Mn")
    letter = next((each for each in (bare, lower) if len(each) == 1), character)
    if category == "Lo" and unicodedata.name(character, "").startswith(_IDEOGRAPHS):
        return ord(letter) | ALONE
    return ord(letter)
