"""How a stage's mixture takes over from the one before it, and how much a source may give to a run."""

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Ramp(Section):
    """How a stage takes over: from the mixture before it to its own in `rungs` equal changes, spread over its first
    `tokens` or `steps`."""

    tokens: Count | None = None
    steps: Count | None = None
    rungs: Count = 10

    @model_validator(mode="after")
    def _length(self) -> "Ramp":
        if (self.tokens is None) == (self.steps is None):
            raise ValueError("give exactly one of 'tokens' and 'steps'")
        return self

    @property
    def length(self) -> int:
        """Its tokens or steps, whichever it is given in."""
        return self.tokens or self.steps or 0


class Cap(Section):
    """What a source may give to a whole run at most: `epochs` or `tokens`.

    `factor`, filled in when the run begins, is what its weight in every stage is multiplied with; from then on it
    stays, whatever a longer run would make of it.
    """

    epochs: float | None = Field(default=None, gt=0)
    tokens: Count | None = None
    factor: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _limit(self) -> "Cap":
        if (self.epochs is None) == (self.tokens is None):
            raise ValueError("give exactly one of 'epochs' and 'tokens'")
        return self
