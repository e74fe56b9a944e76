"""Mamba-2: a state space layer with one decay a head."""

from typing import Literal

from pydantic import Field, model_validator

from smelt.recipe.parts.part import Counts, Kept, Part, Surroundings
from smelt.recipe.units import Count

Five = tuple[float, float, float, float, float]


class Mamba2(Part):
    """Mamba-2 (Dao & Gu 2024): `heads` heads of `head_dim` channels, a state of `state` numbers a channel.

    groups        heads in equal groups that share B and C
    conv          width of the causal depthwise convolution before the state space
    chunk         tokens a chunk of the parallel form
    bias          on the input and output projections; `conv_bias` on the convolution
    norm          the gated normalisation of the output: over `norm_groups` equal parts, or left out (silu gate alone)
    gate_first    gate before that norm (Mamba-2, Nemotron-H), or after it
    dt_min, dt_max  the time step is clamped to these, after softplus
    scales        factors on the five parts of the input projection: gate, x, B, C, dt (Falcon-H1)
    """

    kind: Literal["mamba2"]
    heads: Count
    head_dim: Count
    state: Count
    groups: Count = 1
    conv: Count = 4
    chunk: Count = 256
    bias: bool = False
    conv_bias: bool = True
    norm: bool = True
    norm_groups: Count = 1
    gate_first: bool = True
    dt_min: float = Field(default=0.0, ge=0)
    dt_max: float | None = Field(default=None, gt=0)
    scales: Five = (1.0, 1.0, 1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _fits(self) -> "Mamba2":
        if self.heads % self.groups:
            raise ValueError(f"heads ({self.heads}) must be divisible by groups ({self.groups})")
        if self.inner % self.norm_groups:
            raise ValueError(f"heads * head_dim ({self.inner}) must be divisible by norm_groups ({self.norm_groups})")
        if self.dt_max is not None and self.dt_min >= self.dt_max:
            raise ValueError(f"dt_min ({self.dt_min:g}) must be below dt_max ({self.dt_max:g})")
        if not self.norm and (self.norm_groups != 1 or not self.gate_first):
            field = f"norm_groups ({self.norm_groups})" if self.norm_groups != 1 else "gate_first (false)"
            raise ValueError(f"{field} needs norm; set norm to true, or drop it")
        return self

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_dim

    @property
    def convolved(self) -> int:
        """Channels the convolution sees: x, B and C."""
        return self.inner + 2 * self.groups * self.state

    def count(self, around: Surroundings) -> Counts:
        projected = self.inner + self.convolved + self.heads
        total = around.hidden * (projected + self.inner) + self.bias * (projected + around.hidden)
        total += self.convolved * (self.conv + self.conv_bias)
        return Counts.dense(total + 3 * self.heads + self.norm * self.inner)

    def flops(self, around: Surroundings, sequence: int) -> int:
        projections = around.hidden * (2 * self.inner + self.convolved + self.heads)
        chunk = min(self.chunk, sequence)
        within = self.groups * self.state * chunk + self.inner * chunk  # causal: half of 2 * chunk * (state + channels)
        return 2 * projections + 2 * self.convolved * self.conv + within + 4 * self.inner * self.state

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        return Kept(self.convolved * (self.conv - 1), self.inner * self.state)
