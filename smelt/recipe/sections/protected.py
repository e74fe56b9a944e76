"""`corpus.decontaminate`: texts that no document may repeat."""

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Protected(Section):
    """Texts in `field` of each row of a JSON Lines or Parquet file (a file, a folder or a glob)."""

    path: str
    field: str


class Decontaminate(Section):
    """Documents that share a run of `ngram` words with a protected text are dropped.

    A protected text of fewer words is looked for whole if it has at least 5, and not at all below that. Case, accents,
    punctuation and spacing are not compared.
    """

    against: tuple[Protected, ...] = Field(min_length=1)
    ngram: Count = 13
