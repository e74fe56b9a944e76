"""Spans of words that follow themselves over and over (a rule of OLMo et al. 2024, for tokens there)."""

from collections.abc import Callable, Sequence

from smelt.corpus.filters.characters import Batch
from smelt.corpus.filters.measured import Matrix, Measured
from smelt.corpus.filters.scores import Rule, Thresholds
from smelt.corpus.filters.splitter import split_words
from smelt.recipe.sections.filters import RepeatedSpans

COLUMNS = ("repeats",)
THRESHOLDS = Thresholds((Rule("a span repeats too often", "repeats", "above", "max_repeats"),))


def scorer(section: RepeatedSpans) -> Measured:
    def load() -> Callable[[Batch], Matrix]:
        from smelt.corpus.filters.compiled.repeated_spans import measure_all

        return lambda batch: measure_all(batch, section.max_span)

    return Measured(section.kind, COLUMNS, lambda text: measure(text, section.max_span), load)


def measure(text: str, max_span: int) -> tuple[float]:
    """How many times in a row the most repeated span stands: 1 where nothing follows itself, 0 without words."""
    words = split_words(text)
    return (max((_in_a_row(words, span) for span in range(1, max_span + 1)), default=1) if words else 0,)


def _in_a_row(words: Sequence[str], span: int) -> int:
    longest = run = 0
    for word, earlier in zip(words[span:], words, strict=False):
        run = run + 1 if word == earlier else 0
        longest = max(longest, run)
    return longest // span + 1
