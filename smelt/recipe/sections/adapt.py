"""`train.adapt`: capabilities that are watched for plateaus, and what a shift of the mixture may do about one."""

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import SourceName


class Capability(Section):
    """Something a model learns, measured by `tasks` (their mean score) or by bits per byte on the `validation` text of
    sources; `sources` are the ones to raise when it stalls."""

    tasks: tuple[str, ...] = ()
    validation: tuple[SourceName, ...] = ()
    sources: tuple[SourceName, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _measured(self) -> "Capability":
        if bool(self.tasks) == bool(self.validation):
            raise ValueError("give exactly one of 'tasks' and 'validation'")
        return self


class Adapt(Section):
    """A capability has stalled when over the last `window` evaluations of the mixture at hand it has surely gained less
    than `gain` (score, or bits per byte), while another one has surely risen.

    Then the weights of its sources times `factor` are recommended; with `apply` the run takes them up itself, as an
    amendment on record.
    """

    capabilities: dict[str, Capability] = Field(min_length=2)
    window: int = Field(default=6, ge=3)
    gain: float = Field(default=0.01, gt=0)
    factor: float = Field(default=1.5, gt=1)
    apply: bool = False
