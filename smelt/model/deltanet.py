"""Gated DeltaNet (Yang et al. 2024), as in Qwen3-Next: a linear layer that overwrites what its state holds at a key.

Files that fuse the input projections stack, for each key head in turn, its q, its k, the v and then the gates of the
value heads that share it; and in a second matrix, for each key head in turn, the b and then the a of those value heads.
The convolution's channels are those of q, k, v, all heads of each together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model import delta_rule
from smelt.model.context import Context
from smelt.model.convolution import Convolution
from smelt.model.linear import Linear
from smelt.model.norm import RMSNorm
from smelt.model.recurrence import Recurrence
from smelt.model.time_scales import log_between, steps_before_softplus
from smelt.model.wide import wide
from smelt.recipe.parts import deltanet
from smelt.recipe.parts.part import Surroundings


class GatedDeltaNet(nn.Module):
    """q, k, v = silu(conv(projections)), q and k of length 1 a head and q times key_dim ** -0.5; the state fades by
    exp(-exp(a_log) softplus(a + dt_bias)) and takes a share sigmoid(b) of the new value; norm(o) * silu(gate)."""

    def __init__(self, config: deltanet.GatedDeltaNet, around: Surroundings) -> None:
        super().__init__()
        self.config = config
        hidden = around.hidden
        self.q, self.k = Linear(hidden, config.keys), Linear(hidden, config.keys)
        self.v, self.gate = Linear(hidden, config.values), Linear(hidden, config.values)
        self.b, self.a = Linear(hidden, config.value_heads), Linear(hidden, config.value_heads)
        self.conv = Convolution(2 * config.keys + config.values, config.conv)
        self.a_log, self.dt_bias = (nn.Parameter(torch.full((config.value_heads,), torch.nan)) for _ in range(2))
        self.norm = RMSNorm(config.value_dim, around.norm.eps)
        self.out = Linear(config.values, hidden, writes=True)
        self.fills = {"a_log": log_between(0.01, 16.0), "dt_bias": steps_before_softplus}

    def forward(self, x: Tensor, context: Context, cache: Recurrence | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        config = self.config
        mixed = F.silu(self.conv(torch.cat((self.q(x), self.k(x), self.v(x)), -1), context, cache))
        q, k, v = mixed.split((config.keys, config.keys, config.values), -1)
        q, k = (_unit(part.unflatten(-1, (config.key_heads, -1))) for part in (q, k))
        v = v.unflatten(-1, (config.value_heads, -1))  # [batch, seq, value_heads, value_dim]
        heads = self.remember(q * config.key_dim**-0.5, k, v, x, context, cache)
        gate = F.silu(wide(self.gate(x)))
        out: Tensor = self.out((self.norm(heads).flatten(-2) * gate).to(x.dtype))
        return out

    def remember(
        self, q: Tensor, k: Tensor, v: Tensor, x: Tensor, context: Context, cache: Recurrence | None
    ) -> Tensor:
        """What each value head reads from its state, float32 `[batch, seq, value_heads, value_dim]`."""
        decay = -self.a_log.exp() * F.softplus(wide(self.a(x)) + self.dt_bias)
        share = wide(self.b(x)).sigmoid()
        if cache is None:
            return context.by_heads(self.read, q, k, v, decay, share)
        if context.new == 1:
            heads, cache.state = delta_rule.step(q, k, v, decay, share, cache.state, context)
        else:
            heads, cache.state = delta_rule.chunked(q, k, v, decay, share, cache.state, context, self.config.chunk)
        return heads

    def read(self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, share: Tensor, context: Context) -> Tensor:
        """`remember` for rows that begin here."""
        return delta_rule.chunked(q, k, v, decay, share, None, context, self.config.chunk)[0]

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> Recurrence:
        """For `batch` rows of any length."""
        config = self.config
        return Recurrence(
            torch.zeros(batch, config.value_heads, config.key_dim, config.value_dim, device=device),
            torch.zeros(batch, config.conv - 1, 2 * config.keys + config.values, dtype=dtype, device=device),
        )


def _unit(x: Tensor) -> Tensor:
    """Each vector divided by its length; 1e-6 under the root keeps zero at zero."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
