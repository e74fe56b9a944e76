"""`corpus`: sources of documents, what is cleaned out of them, and which documents are kept for validation."""

from typing import Annotated

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.duplicates import AnyDuplicates, Lines
from smelt.recipe.sections.edits import AnyEdit
from smelt.recipe.sections.executor import AnyExecutor, Local
from smelt.recipe.sections.filters import HeuristicFilter
from smelt.recipe.sections.judges import JudgeFilter
from smelt.recipe.sections.protected import Decontaminate
from smelt.recipe.sections.readers import Reader
from smelt.recipe.units import Count

SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
AnyFilter = Annotated[HeuristicFilter | JudgeFilter, Field(discriminator="kind")]


class Source(Section):
    """One named source of documents; `documents` caps how many are read.

    Documents are changed by `edit`, in order; then each of `filter` measures them, and drops those beyond its
    thresholds.
    """

    read: Reader
    documents: Count | None = None
    edit: tuple[AnyEdit, ...] = ()
    filter: tuple[AnyFilter, ...] = ()


class Corpus(Section):
    """All sources, and what is done across them, in this order: `lines` removes repeated lines, the sources' filters
    drop documents, then `dedup` and `decontaminate` do.

    `validation_fraction` is the share of each source's documents kept for validation (by a hash of the text);
    `bad_share` how much of a source may be unreadable before building stops.
    """

    sources: dict[SourceName, Source] = Field(min_length=1)
    lines: Lines | None = None
    dedup: tuple[AnyDuplicates, ...] = ()
    decontaminate: Decontaminate | None = None
    bad_share: float = Field(default=0.01, ge=0, le=1)
    validation_fraction: float = Field(default=0.02, gt=0, lt=0.5)
    executor: AnyExecutor = Local()

    @model_validator(mode="after")
    def _lines_of_its_sources(self) -> "Corpus":
        unknown = set((self.lines and self.lines.sources) or ()) - set(self.sources)
        if unknown:
            there = ", ".join(self.sources)
            raise ValueError(f"lines.sources: no source '{min(unknown)}' (sources there: {there}); name one of them")
        return self
