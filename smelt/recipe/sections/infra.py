"""`infra`: the machine. Nothing here changes the maths, only speed, memory and cost."""

from typing import Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Infra(Section):
    """`micro_batch`: windows a forward pass; `price_per_hour`: what an hour of this machine costs, for the report."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    micro_batch: Count = 8
    price_per_hour: float | None = Field(default=None, ge=0)
