"""`corpus.sources.NAME.filter`: rules that count, and thresholds on what they count."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section

Words = Annotated[int, Field(ge=1, le=1000)]


class Filter(Section):
    """What every filter shares: thresholds, which can be changed without scoring again, and which null switches off
    where it may stand; and what its scores depend on, the fields that `measures` names unless it says otherwise."""

    measures: ClassVar[tuple[str, ...]] = ()

    def scoring(self) -> dict[str, Any]:
        """What its scores depend on, JSON-serialisable."""
        return self.model_dump(mode="json", include={"kind", *self.measures})


class GopherQuality(Filter):
    """The quality rules of Gopher (Rae et al. 2021, section A.1.1).

    `max_symbol_ratio` is for hash signs and for ellipses, each per word; the lines and words of the other shares are
    of the document's own; `min_stop_words` is how many different ones of `stop_words` must occur.
    """

    measures = ("stop_words",)

    kind: Literal["gopher-quality"]
    min_words: int | None = 50
    max_words: int | None = 100_000
    min_word_length: float | None = 3
    max_word_length: float | None = 10
    max_symbol_ratio: float | None = 0.1
    max_bullet_lines: float | None = 0.9
    max_ellipsis_lines: float | None = 0.3
    min_alphabetic_words: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherRepetition(Filter):
    """The repetition rules of Gopher (Rae et al. 2021, table A1).

    `max_top_ngram` limits, by n, the share of characters in the most frequent n-gram of words, and
    `max_duplicate_ngram` the share in n-grams that occurred before. Scores depend on these n; {} switches either off.
    """

    kind: Literal["gopher-repetition"]
    max_duplicate_paragraphs: float | None = 0.3
    max_duplicate_paragraph_characters: float | None = 0.2
    max_duplicate_lines: float | None = 0.3
    max_duplicate_line_characters: float | None = 0.2
    max_top_ngram: dict[Words, float] = Field(default={2: 0.2, 3: 0.18, 4: 0.16})
    max_duplicate_ngram: dict[Words, float] = Field(default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1})

    def scoring(self) -> dict[str, Any]:
        return {"kind": self.kind, "top": sorted(self.max_top_ngram), "duplicate": sorted(self.max_duplicate_ngram)}


class C4Quality(Filter):
    """The page rules of C4 (Raffel et al. 2020, section 2.2), meant to come after the edit `c4-lines`."""

    kind: Literal["c4-quality"]
    max_lorem_ipsum: int | None = 0
    max_curly_brackets: int | None = 0
    min_sentences: int | None = 5


class FineWebQuality(Filter):
    """The rules that FineWeb adds (Penedo et al. 2024), on lines that are not blank.

    `max_short_lines` is the share of lines of at most `short_line` characters, `max_newlines` line ends per word.
    """

    measures = ("short_line",)

    kind: Literal["fineweb-quality"]
    min_punctuated_lines: float | None = 0.12
    max_short_lines: float | None = 0.67
    short_line: int = Field(default=30, ge=0)
    max_duplicate_characters: float | None = 0.01
    max_newlines: float | None = 0.3


class RepeatedSpans(Filter):
    """Documents in which a span of 1 to `max_span` words follows itself so that it stands more than `max_repeats`
    times in a row (a rule of OLMo et al. 2024, for tokens there)."""

    measures = ("max_span",)

    kind: Literal["repeated-spans"]
    max_span: int = Field(default=13, ge=1, le=1000)
    max_repeats: int | None = 31


class Lengths(Filter):
    """How long documents, their lines and words are; lengths are characters."""

    kind: Literal["lengths"]
    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    max_lines: int | None = None
    max_mean_line: float | None = None
    max_longest_line: int | None = None
    max_longest_word: int | None = None


class Symbols(Filter):
    """What the characters of a document are. `max_symbols` is the share of those that are no letters, marks, digits or
    white space, `max_digits` of digits, `max_capitals` of capitals among letters, `max_broken` of what only broken
    encodings leave: replacement, control, private and unassigned characters, and UTF-8 read as Latin-1 or Windows-1252.
    """

    kind: Literal["symbols"]
    max_symbols: float | None = None
    max_digits: float | None = None
    max_capitals: float | None = None
    max_broken: float | None = 0.01


HeuristicFilter = GopherQuality | GopherRepetition | C4Quality | FineWebQuality | RepeatedSpans | Lengths | Symbols
