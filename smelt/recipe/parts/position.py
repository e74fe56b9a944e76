"""How a token knows where it stands."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class LinearScaling(Section):
    """Position interpolation (Chen et al. 2023): every angle divided by `factor`."""

    kind: Literal["linear"]
    factor: float = Field(ge=1)


class Yarn(Section):
    """YaRN (Peng et al. 2023): slow pairs divided by `factor`, fast ones kept, a ramp between.

    A pair that turns more than `beta_fast` times within `original` tokens is kept, fewer than `beta_slow` divided.
    Queries and keys are multiplied by `temperature`, by default 0.1 ln(factor) + 1. `truncate` rounds the ends of the
    ramp to whole pairs.
    """

    kind: Literal["yarn"]
    factor: float = Field(ge=1)
    original: Count
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)
    temperature: float | None = Field(default=None, gt=0)
    truncate: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> "Yarn":
        if self.beta_slow >= self.beta_fast:
            raise ValueError(f"beta_slow ({self.beta_slow:g}) must be below beta_fast ({self.beta_fast:g})")
        if self.original <= 2 * math.pi * self.beta_slow:
            raise ValueError(
                f"original ({self.original}) must exceed 2 pi beta_slow ({2 * math.pi * self.beta_slow:.1f}), "
                "or no pair turns often enough to be kept"
            )
        return self

    @property
    def heat(self) -> float:
        """What queries and keys are multiplied by."""
        return self.temperature or 0.1 * math.log(self.factor) + 1


class Llama3Scaling(Section):
    """Llama 3.1's scaling: wavelengths above original / low_frequency divided by `factor`, short ones kept."""

    kind: Literal["llama3"]
    factor: float = Field(ge=1)
    original: Count
    low_frequency: float = Field(default=1.0, gt=0)
    high_frequency: float = Field(default=4.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Llama3Scaling":
        if self.low_frequency >= self.high_frequency:
            raise ValueError(
                f"low_frequency ({self.low_frequency}) must be below high_frequency ({self.high_frequency})"
            )
        return self


class DualChunk(Section):
    """Dual chunk attention (An et al. 2024), for inference beyond the trained length: no distance reaches `original`.

    Keys stand at their place in their chunk of `chunk` tokens. A query sees its own chunk as usual. To the chunk
    before, the first `local` queries of a chunk see exact distances, the others stand at `original` - 1, as all do to
    everything earlier. `original` is the trained length, by default chunk + local.
    """

    kind: Literal["dual_chunk"]
    chunk: Count
    local: Count
    original: Count | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "DualChunk":
        if self.local > self.chunk:
            raise ValueError(f"local ({self.local}) must be at most chunk ({self.chunk})")
        if self.original is not None and self.original < self.chunk + self.local:
            raise ValueError(f"original ({self.original}) must be at least chunk + local ({self.chunk + self.local})")
        return self

    @property
    def greatest(self) -> int:
        """The greatest distance."""
        return (self.original or self.chunk + self.local) - 1


Scaling = Annotated[LinearScaling | Yarn | Llama3Scaling | DualChunk, Field(discriminator="kind")]


class Rope(Section):
    """Rotary position embedding (Su et al. 2021) with base frequency `theta`, on the first `fraction` of each head."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(default=50_000.0, gt=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    scaling: Scaling | None = None

    def rotated(self, head_dim: int) -> int:
        """Channels of a head that turn; ValueError unless that is an even number above 0."""
        channels = round(head_dim * self.fraction)
        if channels % 2 or not channels or abs(channels - head_dim * self.fraction) > 1e-6:
            raise ValueError(
                f"head_dim ({head_dim}) times position.fraction ({self.fraction:g}) must be even, "
                "as rotary positions pair channels"
            )
        return channels


class NoPosition(Section):
    """No position embedding: order comes from the causal mask alone."""

    kind: Literal["none"]


class Learned(Section):
    """A learned vector for each of `length` positions, added to the token embeddings; for the whole model only."""

    kind: Literal["learned"]
    length: Count


class Alibi(Section):
    """Attention with linear biases (Press et al. 2022): -slope * distance added to the scores, a slope a head."""

    kind: Literal["alibi"]


Position = Annotated[Rope | NoPosition | Learned | Alibi, Field(discriminator="kind")]


def check_training(position: Position, sequence: int) -> None:
    """ValueError where a model with `position` cannot train on rows of `sequence` tokens."""
    if isinstance(position, Learned) and position.length < sequence:
        raise ValueError(
            f"model.position.length ({position.length}) must be at least the sequence trained on ({sequence}), "
            "as each position has its own learned vector"
        )
    if isinstance(position, Rope) and isinstance(position.scaling, DualChunk):
        raise ValueError(
            "model.position.scaling 'dual_chunk' is for inference beyond the trained length; train with another"
        )
