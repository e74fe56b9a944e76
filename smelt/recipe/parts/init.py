"""What the weights are before training."""

from typing import Annotated, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class _Init(Section):
    std: float = Field(default=0.02, gt=0)

    def widening(self, hidden: int) -> float:
        """Width of the model that was tuned over that of this one, where the scheme knows of it."""
        return 1.0


class NormalInit(_Init):
    """Every matrix normal(0, std)."""

    kind: Literal["normal"] = "normal"


class TruncatedInit(_Init):
    """Every matrix normal(0, std), cut at three std."""

    kind: Literal["truncated"]


class ScaledInit(_Init):
    """Normal(0, std), and std / sqrt(2 * layers) where a sublayer writes to the residual stream (GPT-2)."""

    kind: Literal["scaled"]


class MuPInit(_Init):
    """Maximal update parametrisation (Yang et al. 2022, table 8, Adam) around a model of `base_hidden`: what was tuned
    there holds here.

    Embeddings and head start at std; every other matrix at std * sqrt(base_hidden / hidden), and it learns at
    lr * base_hidden / hidden, with its weight decay a step unchanged. Logits are multiplied by base_hidden / hidden.
    Widths, ranks and the number of heads are taken to grow with hidden, the channels of a head not to.
    """

    kind: Literal["mup"]
    base_hidden: Count

    def widening(self, hidden: int) -> float:
        return self.base_hidden / hidden


Init = Annotated[NormalInit | TruncatedInit | ScaledInit | MuPInit, Field(discriminator="kind")]
