"""`amendments`: how a run departs from what was planned, from a step on; only ever appended."""

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.stage import SETTABLE, WORDS
from smelt.recipe.units import Count, CountOrZero

_MIXTURE = r"train\.stages\.\d+\.mixture"
_PLAN = re.compile(
    rf"train\.(schedule(\.\w+)?|batch_tokens|batch_warmup(\.(scale_lr|rungs(\.\d+(\.\w+)?)?))?|stages(\.\d+)?"
    rf"|stages\.\d+\.(steps|tokens|sequence|packing|set|schedule(\.\w+)?))|{_MIXTURE}"
)
_PASSING = re.compile(_MIXTURE)


class Amendment(Section):
    """From the batch of step `from_step` on (counted from 0), fields have the values in `set`, up to `until_step` where
    that is given; or `skip` batches of data are passed over, the order of the later ones kept.

    `by` says who made it: the user, or the run itself, which found a plateau.
    """

    from_step: CountOrZero
    until_step: Count | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    skip: Count | None = None
    by: Literal["user", "plateau"] = "user"

    @model_validator(mode="after")
    def _fits(self) -> "Amendment":
        if bool(self.set) == (self.skip is not None):
            raise ValueError("give exactly one of 'set' and 'skip'")
        for key in self.set:
            if not (SETTABLE.fullmatch(key) or _PLAN.fullmatch(key)):
                raise ValueError(
                    f"set: '{key}' cannot change during a run; what can is {WORDS}, train.schedule, batch_tokens and "
                    "batch_warmup, and of train.stages.N steps, tokens, mixture, sequence, packing, schedule and set"
                )
        if self.until_step is None:
            return self
        if self.until_step <= self.from_step:
            raise ValueError(f"until_step ({self.until_step}) must be later than from_step ({self.from_step})")
        if self.skip is not None:
            raise ValueError("a 'skip' happens once and has no until_step")
        for key in self.set:
            if not (SETTABLE.fullmatch(key) or _PASSING.fullmatch(key)):
                raise ValueError(f"set: '{key}' changes the plan and cannot expire; drop until_step")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The changes of model and optimizer, as a stage's `set` has them."""
        return {key: value for key, value in self.set.items() if SETTABLE.fullmatch(key)}

    @property
    def planned(self) -> dict[str, Any]:
        """The changes of what is trained on, and for how long."""
        return {key: value for key, value in self.set.items() if not SETTABLE.fullmatch(key)}
