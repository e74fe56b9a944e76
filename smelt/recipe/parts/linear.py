"""Linear attention with the gates of the literature: one layer, parametrised."""

from typing import Literal

from pydantic import Field

from smelt.recipe.parts.part import Counts, Kept, Part, Surroundings
from smelt.recipe.units import Count

Gate = Literal[
    "none", "lightning", "mamba", "mamba2", "mlstm", "retention", "dfw", "gateloop", "hgrn2", "rwkv6", "gla"
]


class LinearAttention(Part):
    """S_t = G_t * S_{t-1} + k_t v_t^T, o_t = q_t S_t: linear attention with a state of key_dim x value_dim a head.

    gate          G_t. none: 1. lightning: a fixed decay a head (MiniMax-01). A number a head from the input: mamba2,
                  mlstm, retention. A number a key channel: rwkv6, gla, hgrn2, gateloop (complex). A number a key and
                  value channel: mamba, dfw.
    activation    of queries, keys and values
    norm          rms: the output of each head is RMS-normalised (NormAttention); none
    output_gate   the output multiplied by sigmoid of a projection of the input
    rank          of the two-matrix gates, mamba and gla
    tau           temperature of the gates retention and gla
    floor         the least hgrn2 gate
    chunk         tokens a chunk of the parallel form
    """

    kind: Literal["linear"]
    heads: Count
    key_dim: Count
    value_dim: Count
    gate: Gate = "none"
    activation: Literal["none", "silu"] = "none"
    norm: Literal["rms", "none"] = "rms"
    output_gate: bool = False
    rank: Count = 16
    tau: float = Field(default=16.0, gt=0)
    floor: float = Field(default=0.0, ge=0, lt=1)
    chunk: Count = 64

    @property
    def keys(self) -> int:
        """Key channels of all heads."""
        return self.heads * self.key_dim

    @property
    def values(self) -> int:
        """Value channels of all heads."""
        return self.heads * self.value_dim

    def gate_matrices(self, hidden: int) -> int:
        """Weights of the gate's projections that multiply the input."""
        keys, values = self.keys, self.values
        return {
            "none": 0,
            "lightning": 0,
            "mamba": self.rank * (hidden + values),
            "mamba2": hidden * self.heads,
            "mlstm": hidden * self.heads,
            "retention": hidden * self.heads,
            "dfw": hidden * (keys + values),
            "gateloop": 2 * hidden * keys,
            "hgrn2": hidden * keys,
            "rwkv6": hidden * keys,
            "gla": self.rank * (hidden + keys),
        }[self.gate]

    def matrices(self, hidden: int) -> int:
        """Weights that multiply."""
        return hidden * (2 * self.keys + (2 + self.output_gate) * self.values) + self.gate_matrices(hidden)

    def count(self, around: Surroundings) -> Counts:
        own = {"mamba": self.keys * self.value_dim, "mamba2": self.heads}.get(self.gate, 0)
        return Counts.dense(self.matrices(around.hidden) + own + self.value_dim * (self.norm == "rms"))

    def flops(self, around: Surroundings, sequence: int) -> int:
        within = self.heads * min(self.chunk, sequence) * (self.key_dim + self.value_dim)
        return 2 * self.matrices(around.hidden) + within + 4 * self.keys * self.value_dim

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        parts = 2 if self.gate == "gateloop" else 1
        return Kept(0, parts * self.keys * self.value_dim)
