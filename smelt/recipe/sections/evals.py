"""`evals`: what is measured along the way and after each step of the lifecycle."""

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Evals(Section):
    """Tasks by name, `items` of each; run every `every_steps` steps of training and at its end.

    `validation_bytes` caps how much text of each source's validation split is scored (whole documents); `samples`
    items of each task are kept to read, with the model's answers.
    """

    tasks: tuple[str, ...] = ()
    items: Count = 200
    every_steps: Count = 500
    validation_bytes: Count = 1_000_000
    samples: int = Field(default=5, ge=0)
