"""`train.from`: the run that this one goes on from."""

from typing import Any, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.stage import Packing
from smelt.recipe.units import Count, CountOrZero


class Stretch(Section):
    """Steps that were taken alike, in stage number `stage` of all so far, after `skip` batches were passed over.

    `shared`: on the run's schedule and not the stage's own. `set`: what the model's section had been given.
    """

    stage: CountOrZero
    name: str
    steps: Count
    sequence: Count
    batch_tokens: Count
    mixture: dict[str, float]
    skip: CountOrZero = 0
    shared: bool = True
    packing: Packing = "concatenate"
    set: dict[str, Any] = Field(default_factory=dict)


class Trunk(Section):
    """Goes on from step `step` of `run` (a run's name, or its folder): its data, and the schedule but for stages that
    have their own.

    `optimizer: reset` leaves its state behind. `past`, filled in when the run begins, is what the trunk did until then.
    """

    run: str
    step: Count
    optimizer: Literal["keep", "reset"] = "keep"
    past: tuple[Stretch, ...] | None = None
