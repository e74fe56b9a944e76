"""`corpus.lines` and `corpus.dedup`: what counts as a repetition, and how far it is looked for."""

from typing import Annotated, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Exact(Section):
    """Documents with the same text; the first is kept, in the order of sources and of their documents.

    `across` compares all sources with each other, otherwise each with itself.
    """

    kind: Literal["exact"]
    across: bool = True


class MinHash(Section):
    """Documents of mostly the same runs of `ngram` words, found by MinHash and locality-sensitive hashing.

    Texts that share a part s of their runs are found with probability 1 - (1 - s^rows)^bands: with 14 bands of 8
    hash functions half of those at 0.69, nine of ten at 0.79. The first is kept of all that are linked, be it through
    others.
    """

    kind: Literal["minhash"]
    across: bool = True
    ngram: Count = 5
    bands: Count = 14
    rows: Count = 8


AnyDuplicates = Annotated[Exact | MinHash, Field(discriminator="kind")]


class Lines(Section):
    """A line found in more than `max_documents` documents is removed from all but the first.

    Lines of fewer than `min_characters` stay. `sources` are those whose lines are counted and removed, all where
    absent; `across` counts them together, otherwise each source by itself.
    """

    max_documents: Count = 1
    min_characters: Count = 10
    sources: tuple[str, ...] | None = None
    across: bool = True
