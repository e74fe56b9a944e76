"""Softmax attention with grouped key-value heads: one module for multi-head, grouped-query and multi-query."""

import torch
from torch import Tensor, nn

from smelt.errors import InputError
from smelt.model.cache import KeyValues, Ring
from smelt.model.context import Context
from smelt.model.dual_chunk import dual_chunk
from smelt.model.fills import constant
from smelt.model.linear import Linear
from smelt.model.masks import Scope, dense
from smelt.model.norm import RMSNorm
from smelt.model.positions import Rotary, rotate
from smelt.model.scope import slopes
from smelt.recipe.parts.attention import GroupedQuery
from smelt.recipe.parts.part import Surroundings
from smelt.recipe.parts.position import Alibi, DualChunk, Rope


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023): query head h reads key-value head h // (heads / kv_heads)."""

    def __init__(self, config: GroupedQuery, around: Surroundings) -> None:
        super().__init__()
        self.config, self.head_dim = config, config.dim(around.hidden)
        position, self.rotary = around.position, None
        if isinstance(position, Rope):
            self.rotary = Rotary(position, position.rotated(self.head_dim))
        self.scope = Scope(
            scale=config.scale or self.head_dim**-0.5,
            window=config.window,
            sink_tokens=config.sink_tokens,
            chunk=config.chunk,
            softcap=config.softcap,
            alibi=slopes(config.heads) if isinstance(position, Alibi) else (),
        )
        hidden, queries, keys = around.hidden, config.heads * self.head_dim, config.kv_heads * self.head_dim
        self.q = Linear(hidden, queries, config.bias != "none")
        self.k = Linear(hidden, keys, config.bias != "none")
        self.v = Linear(hidden, keys, config.bias != "none")
        self.o = Linear(queries, hidden, config.bias == "all", writes=True)
        self.q_norm = self.k_norm = self.gate = self.sinks = None
        if config.qk_norm is not None:
            channels = (queries, keys) if config.qk_norm == "full" else (self.head_dim, self.head_dim)
            self.q_norm, self.k_norm = (RMSNorm(c, around.norm.eps, around.norm.zero_centered) for c in channels)
        if config.gate is not None:
            self.gate = Linear(hidden, queries if config.gate == "channel" else config.heads)
        if config.sinks:
            self.sinks = nn.Parameter(torch.full((config.heads,), torch.nan))
        self.fills = {"sinks": constant(0.0)}

    def forward(self, x: Tensor, context: Context, cache: KeyValues | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        heads = self.attend(*self.project(x), context, cache)
        if self.gate is not None:
            heads = heads * self.gate(x).sigmoid().unflatten(-1, (self.config.heads, -1))
        out: Tensor = self.o(heads.flatten(-2))
        return out

    def project(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values without position, `[batch, seq, heads, head_dim]` each."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.config.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (matrix.unflatten(-1, (-1, self.head_dim)) for matrix in (q, k, v))
        if self.config.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        return [q, k, v]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context, cache: KeyValues | None) -> Tensor:
        """Position, cache and scope: `[batch, new, heads, head_dim]`."""
        if self.rotary is not None:
            if isinstance(self.rotary.part.scaling, DualChunk):
                if self.training:
                    raise InputError(
                        "position.scaling 'dual_chunk' is for inference; call model.eval(), or train with another"
                    )
                return dual_chunk(q, k, v, context, cache, self.rotary, self.scope, self.sinks)
            rotation = context.rotation(self.rotary)
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            seen = cache.append(k, v, context)
            if context.cached:
                return dense(q, *seen, context, self.scope, sinks=self.sinks)
        return context.engine(self.scope)(q, k, v, sinks=self.sinks)

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> KeyValues:
        """Room for `capacity` tokens in each of `batch` rows; layers of limited scope keep no more than they see."""
        span = self.config.window or self.config.chunk or capacity
        places = min(capacity, span + self.config.sink_tokens)
        shape = (batch, places, self.config.kv_heads, self.head_dim)
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return Ring(keys, values, self.config.sink_tokens) if places < capacity else KeyValues(keys, values)
