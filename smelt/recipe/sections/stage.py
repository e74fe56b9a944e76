"""`train.stages`: stretches of training, and what may change from one to the next."""

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.mixture import Ramp
from smelt.recipe.sections.schedule import Schedule
from smelt.recipe.units import Count

Packing = Literal["concatenate", "best-fit"]
SETTABLE = re.compile(
    r"model(\.per_layer\.\d+)?\.(position\.theta|position\.scaling(\.\w+)?|attention\.(window|sink_tokens|chunk))"
    r"|train\.(optimizer\.lr|clip)"
)
WORDS = (
    "model.position.theta and scaling, model.attention.window, sink_tokens and chunk (or those of model.per_layer.N), "
    "train.optimizer.lr and train.clip"
)


class Stage(Section):
    """A stretch of training with its own mixture: source -> weight, normalised; with a `ramp` it takes over from the
    mixture before it little by little.

    Its own `schedule` restarts the clock. `set` changes fields from this stage on, those that change no weight's shape:
    `{model.position.theta: 2.0e6, train.optimizer.lr: 2.0e-5}`.
    """

    name: str
    tokens: Count | None = None
    steps: Count | None = None
    mixture: dict[str, float] = Field(min_length=1)
    ramp: Ramp | None = None
    sequence: Count | None = None
    packing: Packing | None = None
    schedule: Schedule | None = None
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _settable(self) -> "Stage":
        for key in self.set:
            if not SETTABLE.fullmatch(key):
                raise ValueError(f"stage '{self.name}': set: '{key}' cannot change between stages; what can is {WORDS}")
        return self

    @model_validator(mode="after")
    def _length(self) -> "Stage":
        if (self.tokens is None) == (self.steps is None):
            raise ValueError(f"stage '{self.name}': give exactly one of 'tokens' and 'steps'")
        bad = [f"{source}={weight}" for source, weight in self.mixture.items() if not 0 <= weight < float("inf")]
        if bad or not sum(self.mixture.values()) > 0:
            raise ValueError(
                f"stage '{self.name}': mixture weights must be >= 0 with a positive sum, got {bad or 'zeros'}"
            )
        return self
