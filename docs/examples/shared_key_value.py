"""Attention whose one head of keys serves as its values too: half the cache of multi-query attention.

A recipe names it `shared_key_value:SharedKeyValue`; docs/extending.md tells the story.
"""

import torch
from torch import Tensor, nn

from smelt.model.cache import Latents
from smelt.model.context import Context
from smelt.model.linear import Linear
from smelt.model.masks import Scope, dense
from smelt.recipe.parts.custom import Custom
from smelt.recipe.parts.part import Counts, Kept, Surroundings
from smelt.recipe.units import Count


class SharedKeyValue(nn.Module):
    """`heads` query heads read one vector a token, key and value at once."""

    class Config(Custom):
        heads: Count
        head_dim: Count = 64

        def check(self, around: Surroundings) -> None:
            if around.position.kind != "none":
                raise ValueError("a key that is a value cannot be rotated; give these layers position: {kind: none}")

        def count(self, around: Surroundings) -> Counts:
            return Counts.dense(around.hidden * self.head_dim * (2 * self.heads + 1))

        def flops(self, around: Surroundings, sequence: int) -> int:
            return 2 * self.count(around).total + 2 * self.heads * self.head_dim * sequence

        def kept(self, around: Surroundings, tokens: int) -> Kept:
            return Kept(self.head_dim * tokens)

    def __init__(self, config: Config, around: Surroundings) -> None:
        super().__init__()
        self.config = config
        self.scope = Scope(scale=config.head_dim**-0.5)
        self.q = Linear(around.hidden, config.heads * config.head_dim)
        self.kv = Linear(around.hidden, config.head_dim)
        self.o = Linear(config.heads * config.head_dim, around.hidden, writes=True)

    def forward(self, x: Tensor, context: Context, cache: Latents | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        q = self.q(x).unflatten(-1, (self.config.heads, -1))  # [batch, seq, heads, head_dim]
        kv = self.kv(x).unsqueeze(-2)  # [batch, seq, 1, head_dim]
        if cache is not None:
            seen, index = cache.append(kv, context)
        if context.cached:
            out = dense(q, seen, seen, index, context, self.scope)
        else:
            out = context.engine(self.scope)(q, kv, kv)
        mixed: Tensor = self.o(out.flatten(-2))
        return mixed

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> Latents:
        """Room for `capacity` tokens in each of `batch` rows."""
        return Latents(torch.zeros(batch, capacity, 1, self.config.head_dim, dtype=dtype, device=device))
