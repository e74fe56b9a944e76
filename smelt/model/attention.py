"""Softmax attention with grouped key-value heads: one module for multi-head, grouped-query and multi-query."""

import torch
from torch import Tensor, nn

from smelt.model.cache import KeyValues
from smelt.model.context import Context
from smelt.model.linear import Linear
from smelt.model.masks import Scope, dense
from smelt.model.positions import rotate
from smelt.recipe.parts.attention import GroupedQuery
from smelt.recipe.parts.part import Surroundings
from smelt.recipe.parts.position import Alibi, Rope


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023): query head h reads key-value head h // (heads / kv_heads)."""

    def __init__(self, config: GroupedQuery, around: Surroundings) -> None:
        super().__init__()
        self.config, self.position = config, around.position
        self.head_dim = config.dim(around.hidden)
        self.scope = Scope(
            scale=config.scale or self.head_dim**-0.5,
            window=config.window,
            sink_tokens=config.sink_tokens,
            chunk=config.chunk,
            softcap=config.softcap,
            alibi=isinstance(around.position, Alibi),
        )
        self.q = Linear(around.hidden, config.heads * self.head_dim)
        self.k = Linear(around.hidden, config.kv_heads * self.head_dim)
        self.v = Linear(around.hidden, config.kv_heads * self.head_dim)
        self.o = Linear(config.heads * self.head_dim, around.hidden, writes=True)

    def forward(self, x: Tensor, context: Context, cache: KeyValues | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        q, k, v = (matrix(x).unflatten(-1, (-1, self.head_dim)) for matrix in (self.q, self.k, self.v))
        if isinstance(self.position, Rope):
            rotation = context.rotation(self.position, self.position.rotated(self.head_dim))
            q, k = rotate(q, rotation), rotate(k, rotation)
        heads = self.attend(q, k, v, context, cache)
        out: Tensor = self.o(heads.flatten(-2))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context, cache: KeyValues | None) -> Tensor:
        if cache is not None:
            seen = cache.append(k, v, context)
            if context.cached:
                return dense(q, *seen, context, self.scope)
        return context.engine(self.scope)(q, k, v)

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> KeyValues:
        """Room for `capacity` tokens in each of `batch` rows."""
        shape = (batch, capacity, self.config.kv_heads, self.head_dim)
        return KeyValues(*(torch.empty(shape, dtype=dtype, device=device) for _ in range(2)))
