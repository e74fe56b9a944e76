"""What the weights are before training."""

from typing import Annotated, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class NormalInit(Section):
    """Every matrix normal(0, std)."""

    kind: Literal["normal"] = "normal"
    std: float = Field(default=0.02, gt=0)


class TruncatedInit(Section):
    """Every matrix normal(0, std), cut at three std."""

    kind: Literal["truncated"]
    std: float = Field(default=0.02, gt=0)


class ScaledInit(Section):
    """Normal(0, std), and std / sqrt(2 * layers) where a sublayer writes to the residual stream (GPT-2)."""

    kind: Literal["scaled"]
    std: float = Field(default=0.02, gt=0)


class MuPInit(Section):
    """Maximal update parametrisation (Yang et al. 2022) around a model of `base_hidden`: what was tuned there holds.

    Matrices that widen on both sides start at std * sqrt(base_hidden / hidden) and learn at lr * base_hidden / hidden;
    logits are multiplied by base_hidden / hidden. Heads are added, not widened.
    """

    kind: Literal["mup"]
    std: float = Field(default=0.02, gt=0)
    base_hidden: Count


Init = Annotated[NormalInit | TruncatedInit | ScaledInit | MuPInit, Field(discriminator="kind")]
