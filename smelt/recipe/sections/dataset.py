"""`dataset`: token shards and how they are cut."""

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import SourceName
from smelt.recipe.units import Count


class Dataset(Section):
    """`shards` names folders of ready token shards, as further sources; `span` is the unit of shuffling, in tokens."""

    shards: dict[SourceName, str] = Field(default_factory=dict)
    span: Count = 2**16
