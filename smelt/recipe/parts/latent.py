"""Multi-head latent attention: keys and values from one small cached vector a token."""

from typing import Literal

from pydantic import Field

from smelt.recipe.parts.part import Counts, Kept, Part, Surroundings
from smelt.recipe.parts.position import Alibi, DualChunk
from smelt.recipe.units import Count


class Latent(Part):
    """Multi-head latent attention (DeepSeek-V2): `kv_rank` numbers and one rotary key of `rope_dim` kept a token.

    A head's query and key have `nope_dim` channels without position and `rope_dim` with; its value `value_dim`.
    `q_rank` compresses queries too; without it they come straight from the input. `scale` as in `gqa`, by default
    (nope_dim + rope_dim) ** -0.5. `norm_eps` is that of the norms of the compressed vectors, by default the layer's.
    """

    kind: Literal["mla"]
    heads: Count
    kv_rank: Count
    q_rank: Count | None = None
    nope_dim: Count
    rope_dim: Count
    value_dim: Count
    scale: float | None = Field(default=None, gt=0)
    norm_eps: float | None = Field(default=None, gt=0)

    def check(self, around: Surroundings) -> None:
        if self.rope_dim % 2:
            raise ValueError(f"rope_dim ({self.rope_dim}) must be even, as rotary positions pair channels")
        if isinstance(around.position, Alibi):
            raise ValueError("position 'alibi' does not go with attention 'mla'; use rope or none")
        if getattr(around.position, "fraction", 1) != 1:
            raise ValueError("position.fraction does not go with attention 'mla', whose rope_dim says what turns")
        if isinstance(getattr(around.position, "scaling", None), DualChunk):
            raise ValueError("position.scaling 'dual_chunk' does not go with attention 'mla'; use yarn or linear")

    def count(self, around: Surroundings) -> Counts:
        hidden, key = around.hidden, self.nope_dim + self.rope_dim
        q = (
            hidden * self.q_rank + self.q_rank + self.q_rank * self.heads * key
            if self.q_rank
            else hidden * self.heads * key
        )
        kv = hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        up = self.kv_rank * self.heads * (self.nope_dim + self.value_dim)
        return Counts.dense(q + kv + up + self.heads * self.value_dim * hidden)

    def flops(self, around: Surroundings, sequence: int) -> int:
        norms = self.kv_rank + (self.q_rank or 0)
        scores = self.heads * (self.nope_dim + self.rope_dim + self.value_dim) * sequence
        return 2 * (self.count(around).total - norms) + scores

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        return Kept((self.kv_rank + self.rope_dim) * tokens)
