"""Softmax attention: multi-head, grouped-query, multi-query, and what can be added to them."""

from typing import Literal

from pydantic import Field, model_validator

from smelt.recipe.parts.part import Counts, Kept, Part, Surroundings
from smelt.recipe.parts.position import DualChunk, Rope
from smelt.recipe.units import Count, CountOrZero


class GroupedQuery(Part):
    """Grouped-query attention (Ainslie et al. 2023); with `kv_heads` = `heads` it is multi-head, with 1 multi-query.

    bias          on the q, k, v projections, or on all four
    qk_norm       queries and keys normalised, each head alone or all heads together (Henry et al. 2020)
    gate          the output multiplied by sigmoid of a projection of the input, a number a head or a channel
    window        a token sees itself and the window - 1 tokens before it
    sink_tokens   with a window: the first tokens of the document stay visible (Xiao et al. 2023)
    chunk         a token sees only its own chunk of this many positions
    sinks         a learned logit a head joins the softmax and takes probability from the tokens (gpt-oss)
    softcap       scores become softcap * tanh(scores / softcap) (Gemma 2)
    scale         what scores are multiplied by, by default head_dim ** -0.5
    """

    kind: Literal["gqa"] = "gqa"
    heads: Count
    kv_heads: Count
    head_dim: Count | None = None
    bias: Literal["none", "qkv", "all"] = "none"
    qk_norm: Literal["head", "full"] | None = None
    gate: Literal["head", "channel"] | None = None
    window: Count | None = None
    sink_tokens: CountOrZero = 0
    chunk: Count | None = None
    sinks: bool = False
    softcap: float | None = Field(default=None, gt=0)
    scale: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> "GroupedQuery":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be divisible by kv_heads ({self.kv_heads})")
        if self.window and self.chunk:
            raise ValueError(f"window ({self.window}) and chunk ({self.chunk}) exclude each other; drop one")
        if self.sink_tokens and not self.window:
            raise ValueError(f"sink_tokens ({self.sink_tokens}) needs a window; add one, or drop sink_tokens")
        return self

    def dim(self, hidden: int) -> int:
        """Channels a head."""
        return self.head_dim or hidden // self.heads

    def check(self, around: Surroundings) -> None:
        if self.head_dim is None and around.hidden % self.heads:
            raise ValueError(
                f"hidden ({around.hidden}) must be divisible by heads ({self.heads}), or give attention.head_dim"
            )
        if isinstance(around.position, Rope):
            around.position.rotated(self.dim(around.hidden))
            if isinstance(around.position.scaling, DualChunk) and (self.window or self.chunk):
                raise ValueError(
                    f"position.scaling 'dual_chunk' does not go with {'window' if self.window else 'chunk'}, "
                    "as it brings a scope of its own; drop one of them"
                )

    def count(self, around: Surroundings) -> Counts:
        dim, hidden = self.dim(around.hidden), around.hidden
        q, kv = self.heads * dim, self.kv_heads * dim
        total = hidden * (2 * q + 2 * kv)
        total += {"none": 0, "qkv": q + 2 * kv, "all": q + 2 * kv + hidden}[self.bias]
        total += {None: 0, "head": 2 * dim, "full": q + kv}[self.qk_norm]
        total += {None: 0, "head": hidden * self.heads, "channel": hidden * q}[self.gate]
        return Counts.dense(total + self.heads * self.sinks)

    def flops(self, around: Surroundings, sequence: int) -> int:
        dim, hidden = self.dim(around.hidden), around.hidden
        gate = {None: 0, "head": self.heads, "channel": self.heads * dim}[self.gate]
        weights = hidden * (2 * (self.heads + self.kv_heads) * dim + gate)
        return 2 * weights + round(4 * self.heads * dim * self.seen(sequence))

    def seen(self, sequence: int) -> float:
        """Keys a query sees on average in a row of `sequence` tokens, counting a triangle as half its square."""
        if self.chunk:
            return min(self.chunk, sequence) / 2
        span = min(self.window or sequence, sequence)
        return span - span * span / (2 * sequence) + min(self.sink_tokens, sequence - span)

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        places = min(tokens, self.window + self.sink_tokens if self.window else self.chunk or tokens)
        return Kept(2 * self.kv_heads * self.dim(around.hidden) * places)
