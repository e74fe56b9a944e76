"""The rules that FineWeb adds to C4's and Gopher's (Penedo et al. 2024): lines that end, repeat and are no list."""

from collections import Counter
from collections.abc import Callable

from smelt.corpus.filters.characters import Batch
from smelt.corpus.filters.measured import Matrix, Measured, share
from smelt.corpus.filters.scores import Rule, Thresholds
from smelt.corpus.filters.signs import TERMINALS
from smelt.corpus.filters.splitter import split_words
from smelt.recipe.sections.filters import FineWebQuality

COLUMNS = ("punctuated_lines", "short_lines", "duplicate_characters", "newlines")
THRESHOLDS = Thresholds(
    (
        Rule("too few lines end with punctuation", "punctuated_lines", "below", "min_punctuated_lines"),
        Rule("too many short lines", "short_lines", "above", "max_short_lines"),
        Rule("too much text in duplicate lines", "duplicate_characters", "above", "max_duplicate_characters"),
        Rule("too many line ends", "newlines", "above", "max_newlines"),
    )
)
_ENDS = tuple(sorted(TERMINALS))


def scorer(section: FineWebQuality) -> Measured:
    def load() -> Callable[[Batch], Matrix]:
        from smelt.corpus.filters.compiled.fineweb_quality import measure_all

        return lambda batch: measure_all(batch, section.short_line)

    return Measured(section.kind, COLUMNS, lambda text: measure(text, section.short_line), load)


def measure(text: str, short_line: int) -> tuple[float, ...]:
    """The values of `COLUMNS`: shares of the lines that are not blank, of all characters but line ends, and line ends
    per word."""
    lines = [line for line in text.split("\n") if line.strip()]
    repeated = sum(len(line) * (count - 1) for line, count in Counter(lines).items())
    newlines = text.count("\n")
    return (
        share(sum(line.endswith(_ENDS) for line in lines), len(lines)),
        share(sum(len(line) <= short_line for line in lines), len(lines)),
        share(repeated, len(text) - newlines),
        share(newlines, len(split_words(text))),
    )
