"""How filters split text into words and sentences: by rules that know no language, so that every filter measures every
text alike, and fast.

Each ideograph and each kana is a word of its own; Thai, Lao, Khmer and Burmese text counts as one word from space to
space. Thresholds on words need other values there.
"""

import re
from collections.abc import Iterable
from functools import cache

from smelt.corpus.filters.signs import ASSIGNED, CLOSERS, IDEOGRAPHS, SPACED_TERMINALS, TERMINALS, is_mark


def split_words(text: str) -> list[str]:
    """Runs of letters, digits, `_` and marks, joined by single apostrophes and full stops inside (don't, 3.14, U.S);
    each ideograph and kana; runs of any other sign (..., ====). All but white space is in exactly one word."""
    return [word[0] for word in _words().finditer(text)]


def split_sentences(text: str) -> list[str]:
    """Sentences, without the white space around them: up to terminal punctuation and what closes it; the rest of the
    text is one too. A piece without a letter or digit is none."""
    ends = [each.end() for each in _sentence_ends().finditer(text)]
    pieces = (text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True))
    return [piece for piece in pieces if _WORD_CHARACTER.search(piece)]


_WORD_CHARACTER = re.compile(r"\w")


@cache
def _words() -> re.Pattern[str]:
    marks = character_class(filter(is_mark, ASSIGNED))
    base = rf"(?:(?![{IDEOGRAPHS}])\w)"
    run = rf"{base}++(?:{marks}++{base}*+)*+"
    return re.compile(rf"{run}(?:['\u2019.]{run})*+|[{IDEOGRAPHS}]|(\S)\1*+")


@cache
def _sentence_ends() -> re.Pattern[str]:
    closers, spaced = character_class(CLOSERS), character_class(SPACED_TERMINALS)
    others = character_class(TERMINALS.difference(SPACED_TERMINALS))
    return re.compile(rf"{spaced}++{closers}*+(?=\s|\Z)|{others}++{closers}*+")


def character_class(characters: Iterable[str]) -> str:
    """A regular expression that matches any one of the characters; neighbours become a range."""
    codes = sorted(map(ord, characters))
    starts = [code for code, before in zip(codes, [-2, *codes], strict=False) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], -2], strict=True) if code != after - 1]
    return "[" + "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in zip(starts, ends, strict=True)) + "]"
