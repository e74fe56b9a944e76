"""Linear attention with the gates of the literature: one layer, parametrised."""

from typing import Literal

from pydantic import Field, model_validator

from smelt.recipe.parts.part import Counts, Kept, Part, Surroundings
from smelt.recipe.units import Count

Gate = Literal["none", "lightning", "mamba", "mamba2", "mlstm", "retention", "dfw", "gateloop", "hgrn2", "rwkv6", "gla"]
_OWN = {"rank": ("mamba", "gla"), "tau": ("retention", "gla"), "floor": ("hgrn2",)}  # fields of some gates only


class LinearAttention(Part):
    """S_t = G_t * S_{t-1} + k_t v_t^T, o_t = q_t S_t: linear attention with a state of key_dim x value_dim a head.

    gate          G_t. none: 1. lightning: a fixed decay a head (MiniMax-01). A number a head from the input: mamba2,
                  mlstm, retention. A number a key channel: rwkv6, gla, hgrn2, gateloop (complex). A number a key and
                  value channel: mamba, dfw.
    activation    of queries, keys and values; by default silu with the gate lightning, none with others
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
    activation: Literal["none", "silu"] | None = None
    norm: Literal["rms", "none"] = "rms"
    output_gate: bool = False
    rank: Count = 16
    tau: float = Field(default=16.0, gt=0)
    floor: float = Field(default=0.0, ge=0, lt=1)
    chunk: Count = 64

    @model_validator(mode="after")
    def _fits(self) -> "LinearAttention":
        for name, gates in _OWN.items():
            default, value = type(self).model_fields[name].default, getattr(self, name)
            if self.gate not in gates and value != default:
                raise ValueError(
                    f"{name} ({value:g}) does not go with gate '{self.gate}', only with {' and '.join(gates)}; drop it"
                )
        return self

    @property
    def silu(self) -> bool:
        """Queries, keys and values pass SiLU."""
        return (self.activation or ("silu" if self.gate == "lightning" else "none")) == "silu"

    @property
    def state_parts(self) -> int:
        """Real numbers an element of the state has: gateloop's are complex."""
        return 2 if self.gate == "gateloop" else 1

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
        projections, state = 2 * self.matrices(around.hidden), self.keys * self.value_dim
        if self.gate == "mamba":  # no products: each element of the state is faded, written and read
            return projections + 6 * state
        keys = self.state_parts * self.key_dim
        within = self.heads * min(self.chunk, sequence) * (keys + self.value_dim)  # the causal half of two products
        return projections + within + 4 * self.state_parts * state

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        return Kept(0, self.state_parts * self.keys * self.value_dim)
