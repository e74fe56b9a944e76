"""Feed-forward networks that every token passes whole."""

from typing import Literal

from smelt.recipe.parts.part import Counts, Part, Surroundings
from smelt.recipe.units import Count


class _Gated(Part):
    """down(act(gate(x)) * up(x)), `width` channels wide; `gate_scale` multiplies gate(x), `output_scale` the output."""

    width: Count
    bias: bool = False
    gate_scale: float = 1.0
    output_scale: float = 1.0

    def count(self, around: Surroundings) -> Counts:
        return Counts.dense(3 * around.hidden * self.width + self.bias * (2 * self.width + around.hidden))

    def flops(self, around: Surroundings, sequence: int) -> int:
        return 6 * around.hidden * self.width


class SwiGLU(_Gated):
    """Gated by SiLU (Shazeer 2020): down(silu(gate(x)) * up(x)), `width` channels wide."""

    kind: Literal["swiglu"] = "swiglu"


class GeGLU(_Gated):
    """Gated by GELU in its tanh form (Shazeer 2020, Gemma), `width` channels wide."""

    kind: Literal["geglu"]


class ReLU2(Part):
    """down(relu(up(x)) ** 2) (So et al. 2021), `width` channels wide, without a gate."""

    kind: Literal["relu2"]
    width: Count
    bias: bool = False

    def count(self, around: Surroundings) -> Counts:
        return Counts.dense(2 * around.hidden * self.width + self.bias * (self.width + around.hidden))

    def flops(self, around: Surroundings, sequence: int) -> int:
        return 4 * around.hidden * self.width
