"""The quality rules of Gopher (Rae et al. 2021, section A.1.1): words, their lengths, symbols, lines and stop words."""

from collections.abc import Callable

from smelt.corpus.filters.characters import Batch
from smelt.corpus.filters.measured import Matrix, Measured, share
from smelt.corpus.filters.scores import Rule, Thresholds
from smelt.corpus.filters.signs import BULLETS, ELLIPSES, PUNCTUATION
from smelt.corpus.filters.splitter import split_words
from smelt.recipe.sections.filters import GopherQuality

COLUMNS = (
    "words",
    "word_length",
    "hashes",
    "ellipses",
    "bullet_lines",
    "ellipsis_lines",
    "alphabetic_words",
    "stop_words",
)
THRESHOLDS = Thresholds(
    (
        Rule("too few words", "words", "below", "min_words"),
        Rule("too many words", "words", "above", "max_words"),
        Rule("words too short", "word_length", "below", "min_word_length"),
        Rule("words too long", "word_length", "above", "max_word_length"),
        Rule("too many hash signs", "hashes", "above", "max_symbol_ratio"),
        Rule("too many ellipses", "ellipses", "above", "max_symbol_ratio"),
        Rule("too many bullet lines", "bullet_lines", "above", "max_bullet_lines"),
        Rule("too many lines end with an ellipsis", "ellipsis_lines", "above", "max_ellipsis_lines"),
        Rule("too few alphabetic words", "alphabetic_words", "below", "min_alphabetic_words"),
        Rule("too few stop words", "stop_words", "below", "min_stop_words"),
    )
)


def scorer(section: GopherQuality) -> Measured:
    stop_words = frozenset(section.stop_words)

    def load() -> Callable[[Batch], Matrix]:
        from smelt.corpus.filters.compiled.gopher_quality import measure_all

        return lambda batch: measure_all(batch, sorted(stop_words))

    return Measured(section.kind, COLUMNS, lambda text: measure(text, stop_words), load)


def measure(text: str, stop_words: frozenset[str]) -> tuple[float, ...]:
    """The values of `COLUMNS`. A word of punctuation alone does not count towards `words` and their mean length, but
    is one of those that hash signs, ellipses and words with a letter are measured against."""
    words, lines = split_words(text), text.splitlines()
    named = [word for word in words if not PUNCTUATION.issuperset(word)]
    return (
        len(named),
        share(sum(map(len, named)), len(named)),
        share(text.count("#"), len(words)),
        share(sum(map(text.count, ELLIPSES)), len(words)),
        share(sum(line.lstrip().startswith(BULLETS) for line in lines), len(lines)),
        share(sum(line.rstrip().endswith(ELLIPSES) for line in lines), len(lines)),
        share(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        len(stop_words.intersection(words)),
    )
