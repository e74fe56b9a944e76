"""Where a layer normalises, and how."""

from typing import Literal

from pydantic import Field

from smelt.recipe.sections.base import Section


class Norm(Section):
    """RMS normalisation. `pre` normalises a sublayer's input, `post` its output before it is added to the residual
    stream (OLMo 2), `sandwich` both (Gemma 3). `zero_centered` weights act as 1 + weight and start at 0."""

    placement: Literal["pre", "post", "sandwich"] = "pre"
    eps: float = Field(default=1e-6, gt=0)
    zero_centered: bool = False

    @property
    def count(self) -> int:
        """Norms a sublayer has."""
        return 2 if self.placement == "sandwich" else 1
