"""The page rules of C4 (Raffel et al. 2020, section 2.2): placeholder text, code, and too few sentences."""

from collections.abc import Callable

from smelt.corpus.filters.characters import Batch
from smelt.corpus.filters.measured import Matrix, Measured
from smelt.corpus.filters.scores import Rule, Thresholds
from smelt.corpus.filters.splitter import split_sentences
from smelt.recipe.sections.filters import C4Quality

COLUMNS = ("lorem_ipsum", "curly_brackets", "sentences")
LOREM_IPSUM = "lorem ipsum"
THRESHOLDS = Thresholds(
    (
        Rule("lorem ipsum", "lorem_ipsum", "above", "max_lorem_ipsum"),
        Rule("curly brackets", "curly_brackets", "above", "max_curly_brackets"),
        Rule("too few sentences", "sentences", "below", "min_sentences"),
    )
)


def scorer(section: C4Quality) -> Measured:
    def load() -> Callable[[Batch], Matrix]:
        from smelt.corpus.filters.compiled.c4 import measure_all

        return measure_all

    return Measured(section.kind, COLUMNS, measure, load)


def measure(text: str) -> tuple[float, ...]:
    """The values of `COLUMNS`: counts; no sentence goes on past the end of a line."""
    sentences = sum(len(split_sentences(line)) for line in text.splitlines())
    return text.lower().count(LOREM_IPSUM), text.count("{"), sentences
