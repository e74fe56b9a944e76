"""Linear attention: softmax left out, so that a state of fixed size replaces the keys and values of all tokens."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.context import Context
from smelt.model.gates import GATES, Decay, parted
from smelt.model.linear import Linear
from smelt.model.norm import RMSNorm
from smelt.model.recurrence import Recurrence
from smelt.model.wide import wide
from smelt.recipe.parts import linear
from smelt.recipe.parts.part import Surroundings


class LinearAttention(nn.Module):
    """S_t = G_t * S_{t-1} + k_t v_t^T and o_t = key_dim ** -0.5 q_t S_t a head, with the G_t of `gates`.

    The scale keeps o near the size of v, as softmax attention's does; with `norm: rms` only its eps notices it.
    """

    def __init__(self, config: linear.LinearAttention, around: Surroundings) -> None:
        super().__init__()
        self.config = config
        hidden = around.hidden
        self.q, self.k, self.v = (Linear(hidden, size) for size in (config.keys, config.keys, config.values))
        self.gate = GATES[config.gate](config, hidden)
        self.norm = RMSNorm(config.value_dim, around.norm.eps) if config.norm == "rms" else None
        self.output_gate = Linear(hidden, config.values) if config.output_gate else None
        self.out = Linear(config.values, hidden, writes=True)

    def forward(self, x: Tensor, context: Context, cache: Recurrence | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        q, k, v = (wide(matrix(x)) for matrix in (self.q, self.k, self.v))
        if self.config.silu:
            q, k, v = F.silu(q), F.silu(k), F.silu(v)
        q, k, v = (part.unflatten(-1, (self.config.heads, -1)) for part in (q, k, v))  # [batch, seq, heads, channels]
        heads = self.remember(q * self.config.key_dim**-0.5, k, v, self.gate(x), context, cache)
        heads = (heads if self.norm is None else self.norm(heads)).flatten(-2)
        if self.output_gate is not None:
            heads = heads * wide(self.output_gate(x)).sigmoid()
        out: Tensor = self.out(heads.to(x.dtype))
        return out

    def remember(
        self, q: Tensor, k: Tensor, v: Tensor, decay: Decay, context: Context, cache: Recurrence | None
    ) -> Tensor:
        """What each head reads from its state, float32 `[batch, seq, heads, value_dim]`."""
        if cache is None:
            tokens, heads = parted(decay)
            return context.by_heads(functools.partial(self.read, type(decay)), q, k, v, *tokens, heads=heads)
        if context.new == 1:
            heads, cache.state = decay.step(q, k, v, cache.state, context)
        else:
            heads, cache.state = decay.chunked(q, k, v, cache.state, context, self.config.chunk)
        return heads

    def read(self, kind: type[Decay], q: Tensor, k: Tensor, v: Tensor, *decays: Any) -> Tensor:
        """`remember` for rows that begin here; `decays` make a `kind` of decay, and the last of them is the context."""
        *decays, context = decays
        return kind(*decays).chunked(q, k, v, None, context, self.config.chunk)[0]

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> Recurrence:
        """For `batch` rows of any length."""
        config = self.config
        keys = config.key_dim * config.state_parts
        return Recurrence(torch.zeros(batch, config.heads, keys, config.value_dim, device=device))
