"""`dataset`: token shards and how they are cut."""

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import SourceName
from smelt.recipe.units import Count


class LongDocuments(Section):
    """A source made of the documents of source `of` that have at least `tokens` tokens, their ends included."""

    of: SourceName
    tokens: Count


class Dataset(Section):
    """`shards` names folders of ready token shards, as further sources, and `long` sources made of the long documents
    of others; `span` is the unit of shuffling, in tokens.

    `classes` groups sources (class -> sources) where what is planned and consumed is summed up.
    """

    shards: dict[SourceName, str] = Field(default_factory=dict)
    long: dict[SourceName, LongDocuments] = Field(default_factory=dict)
    span: Count = 2**16
    classes: dict[str, tuple[SourceName, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_class_each(self) -> "Dataset":
        listed = [source for sources in self.classes.values() for source in sources]
        twice = next((source for source in listed if listed.count(source) > 1), None)
        if twice is not None:
            raise ValueError(f"classes: source '{twice}' is listed twice; a source belongs to one class at most")
        return self
