"""Rules on the shape of a document: how long it, its lines and words are, and what characters it is made of."""

import re
from collections.abc import Callable

from smelt.corpus.filters.characters import Batch
from smelt.corpus.filters.measured import Matrix, Measured, share
from smelt.corpus.filters.scores import Rule, Thresholds
from smelt.corpus.filters.signs import CONTINUATIONS, is_broken, is_mark
from smelt.corpus.filters.splitter import character_class, split_words
from smelt.recipe.sections.filters import Lengths, Symbols

LENGTHS = ("characters", "words", "lines", "mean_line", "longest_line", "longest_word")
LENGTH_THRESHOLDS = Thresholds(
    (
        Rule("too short", "characters", "below", "min_characters"),
        Rule("too long", "characters", "above", "max_characters"),
        Rule("too few words", "words", "below", "min_words"),
        Rule("too many words", "words", "above", "max_words"),
        Rule("too many lines", "lines", "above", "max_lines"),
        Rule("lines too long", "mean_line", "above", "max_mean_line"),
        Rule("a line too long", "longest_line", "above", "max_longest_line"),
        Rule("a word too long", "longest_word", "above", "max_longest_word"),
    )
)
SYMBOLS = ("symbols", "digits", "capitals", "broken")
SYMBOL_THRESHOLDS = Thresholds(
    (
        Rule("too many symbols", "symbols", "above", "max_symbols"),
        Rule("too many digits", "digits", "above", "max_digits"),
        Rule("too many capitals", "capitals", "above", "max_capitals"),
        Rule("broken encoding", "broken", "above", "max_broken"),
    )
)
_LATER = character_class(CONTINUATIONS)
_MISREAD = re.compile(rf"[\xc2-\xdf]{_LATER}|[\xe0-\xef]{_LATER}{{2}}|[\xf0-\xf4]{_LATER}{{3}}")


def lengths_scorer(section: Lengths) -> Measured:
    def load() -> Callable[[Batch], Matrix]:
        from smelt.corpus.filters.compiled.shape import lengths_of_all

        return lengths_of_all

    return Measured(section.kind, LENGTHS, lengths, load)


def symbols_scorer(section: Symbols) -> Measured:
    def load() -> Callable[[Batch], Matrix]:
        from smelt.corpus.filters.compiled.shape import symbols_of_all

        return symbols_of_all

    return Measured(section.kind, SYMBOLS, symbols, load)


def lengths(text: str) -> tuple[float, ...]:
    """The values of `LENGTHS`: counts, and characters of lines and words; a line's own end is not counted."""
    words, lines = [len(word) for word in split_words(text)], [len(line) for line in text.splitlines()]
    return (
        len(text),
        len(words),
        len(lines),
        share(sum(lines), len(lines)),
        max(lines, default=0),
        max(words, default=0),
    )


def symbols(text: str) -> tuple[float, ...]:
    """The values of `SYMBOLS`: shares of the characters that are no white space, of the letters for capitals, and of
    all characters for broken ones (a character whose UTF-8 was misread counts with all that it became)."""
    letters, visible = sum(map(str.isalpha, text)), sum(not char.isspace() for char in text)
    misread = sum(len(each) for each in _MISREAD.findall(text))
    rest = _MISREAD.sub("", text)
    return (
        share(sum(map(_is_symbol, text)), visible),
        share(sum(map(str.isdecimal, text)), visible),
        share(sum(map(str.isupper, text)), letters),
        share(misread + sum(map(is_broken, rest)), len(text)),
    )


def _is_symbol(char: str) -> bool:
    return not (char.isspace() or char.isalnum() or is_mark(char))
