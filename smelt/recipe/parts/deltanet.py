"""Gated DeltaNet: a linear layer that overwrites what its state holds at a key."""

from typing import Literal

from pydantic import model_validator

from smelt.recipe.parts.part import Counts, Kept, Part, Surroundings
from smelt.recipe.units import Count


class GatedDeltaNet(Part):
    """Gated DeltaNet (Yang et al. 2024), as in Qwen3-Next: S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T.

    `key_heads` heads of `key_dim` for queries and keys, L2-normalised, shared by equal groups of `value_heads` heads of
    `value_dim`; a causal depthwise convolution of width `conv`; `chunk` tokens a chunk of the parallel form; the output
    is RMS-normalised a head and gated by SiLU.
    """

    kind: Literal["gated_deltanet"]
    key_heads: Count
    value_heads: Count
    key_dim: Count
    value_dim: Count
    conv: Count = 4
    chunk: Count = 64

    @model_validator(mode="after")
    def _fits(self) -> "GatedDeltaNet":
        if self.value_heads % self.key_heads:
            raise ValueError(f"value_heads ({self.value_heads}) must be divisible by key_heads ({self.key_heads})")
        return self

    @property
    def keys(self) -> int:
        """Channels of all key heads."""
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        """Channels of all value heads."""
        return self.value_heads * self.value_dim

    def count(self, around: Surroundings) -> Counts:
        matrices = around.hidden * (2 * self.keys + 3 * self.values + 2 * self.value_heads)
        convolution = (2 * self.keys + self.values) * self.conv
        return Counts.dense(matrices + convolution + 2 * self.value_heads + self.value_dim)

    def flops(self, around: Surroundings, sequence: int) -> int:
        matrices = around.hidden * (2 * self.keys + 3 * self.values + 2 * self.value_heads)
        convolution = (2 * self.keys + self.values) * self.conv
        chunk = min(self.chunk, sequence)
        products = 2 * self.keys * chunk  # of keys, and of queries, with keys: the causal half of each
        solved = self.value_heads * (self.key_dim + self.value_dim) * chunk
        read = self.values * chunk
        state = 6 * self.value_heads * self.key_dim * self.value_dim
        return 2 * (matrices + convolution) + products + solved + read + state

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        convolved = (2 * self.keys + self.values) * (self.conv - 1)
        return Kept(convolved, self.value_heads * self.key_dim * self.value_dim)
