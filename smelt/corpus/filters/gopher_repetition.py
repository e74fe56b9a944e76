"""The repetition rules of Gopher (Rae et al. 2021, table A1): repeated paragraphs, lines and n-grams of words."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from smelt.corpus.filters.characters import Batch
from smelt.corpus.filters.measured import Matrix, Measured, share
from smelt.corpus.filters.scores import Drops, Rule, Scores, Thresholds
from smelt.corpus.filters.splitter import split_words
from smelt.recipe.sections.filters import GopherRepetition

COLUMNS = (
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",
    "duplicate_lines",
    "duplicate_line_characters",
)
THRESHOLDS = Thresholds(
    (
        Rule("too many duplicate paragraphs", "duplicate_paragraphs", "above", "max_duplicate_paragraphs"),
        Rule(
            "too much text in duplicate paragraphs",
            "duplicate_paragraph_characters",
            "above",
            "max_duplicate_paragraph_characters",
        ),
        Rule("too many duplicate lines", "duplicate_lines", "above", "max_duplicate_lines"),
        Rule("too much text in duplicate lines", "duplicate_line_characters", "above", "max_duplicate_line_characters"),
    )
)
_PARAGRAPH_END, _LINE_END = re.compile(r"\n{2,}"), re.compile(r"\n+")


def scorer(section: GopherRepetition) -> Measured:
    top, duplicate = sorted(section.max_top_ngram), sorted(section.max_duplicate_ngram)

    def load() -> Callable[[Batch], Matrix]:
        from smelt.corpus.filters.compiled.gopher_repetition import measure_all

        return lambda batch: measure_all(batch, top, duplicate)

    columns = (*COLUMNS, *map(top_column, top), *map(duplicate_column, duplicate))
    return Measured(section.kind, columns, lambda text: measure(text, top, duplicate), load)


def top_column(n: int) -> str:
    return f"top_{n}_gram"


def duplicate_column(n: int) -> str:
    return f"duplicate_{n}_grams"


def drops(section: GopherRepetition, scores: Scores) -> Drops:
    """The four thresholds, then those of n-grams by n."""
    masks = THRESHOLDS(section, scores)
    for n, limit in sorted(section.max_top_ngram.items()):
        masks[f"one {n}-gram too frequent"] = scores[top_column(n)] > limit
    for n, limit in sorted(section.max_duplicate_ngram.items()):
        masks[f"too many duplicate {n}-grams"] = scores[duplicate_column(n)] > limit
    return masks


def measure(text: str, top: Sequence[int], duplicate: Sequence[int]) -> tuple[float, ...]:
    """The values of `COLUMNS`, then one for each n of `top` and of `duplicate`; characters are shares of the text's."""
    paragraphs, lines = _PARAGRAPH_END.split(text.strip()), _LINE_END.split(text)
    again, again_characters = _repeated(paragraphs)
    lines_again, line_characters = _repeated(lines)
    words, characters = split_words(text), len(text)
    return (
        share(again, len(paragraphs)),
        share(again_characters, characters),
        share(lines_again, len(lines)),
        share(line_characters, characters),
        *(share(_in_most_frequent(words, n), characters) for n in top),
        *(share(_in_repeated(words, n), characters) for n in duplicate),
    )


def _repeated(spans: Iterable[str]) -> tuple[int, int]:
    """How many spans stood earlier already, and their characters."""
    counts = Counter(spans)
    return (
        sum(count - 1 for count in counts.values()),
        sum(len(span) * (count - 1) for span, count in counts.items()),
    )


def _in_most_frequent(words: Sequence[str], n: int) -> int:
    """Characters, spaces between words included, of the most frequent n-gram (of equally frequent ones the first),
    times its count; overlaps count."""
    if len(words) < n:
        return 0
    counts = Counter(zip(*(words[shift:] for shift in range(n)), strict=False))
    ngram = max(counts, key=counts.__getitem__)
    return (sum(map(len, ngram)) + n - 1) * counts[ngram]


def _in_repeated(words: Sequence[str], n: int) -> int:
    """Characters of n-grams that stood earlier, without overlap: after such a one, reading goes on behind it. Two
    n-grams are equal where their characters are, however these fall into words."""
    seen: set[str] = set()
    characters = start = 0
    while start + n <= len(words):
        ngram = "".join(words[start : start + n])
        if ngram in seen:
            characters += len(ngram)
            start += n
        else:
            seen.add(ngram)
            start += 1
    return characters
