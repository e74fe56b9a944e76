"""Mamba-2 (Dao & Gu 2024): a linear layer whose state fades at a rate each token chooses, one a head.

Files that fuse the input projections stack gate, x, B, C, dt in this order (`gate`, `x`, `b`, `c`, `dt` here); the
convolution's channels are those of x, B, C.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model import scan
from smelt.model.context import Context
from smelt.model.convolution import Convolution
from smelt.model.fills import constant
from smelt.model.linear import Linear
from smelt.model.norm import RMSNorm
from smelt.model.recurrence import Recurrence
from smelt.model.time_scales import log_counting, steps_before_softplus
from smelt.model.wide import wide
from smelt.recipe.parts import mamba2
from smelt.recipe.parts.part import Surroundings


class Mamba2(nn.Module):
    """x, B, C = silu(conv(projections)), dt = softplus(dt + dt_bias) clamped; the state of a head, `[state, head_dim]`,
    is S_t = exp(-exp(a_log) dt_t) S_{t-1} + B_t (dt_t x_t)^T, and the head reads C_t S_t + d x_t."""

    def __init__(self, config: mamba2.Mamba2, around: Surroundings) -> None:
        super().__init__()
        self.config = config
        hidden, inner, shared = around.hidden, config.inner, config.groups * config.state
        self.gate, self.x = Linear(hidden, inner, config.bias), Linear(hidden, inner, config.bias)
        self.b, self.c = Linear(hidden, shared, config.bias), Linear(hidden, shared, config.bias)
        self.dt = Linear(hidden, config.heads, config.bias)
        self.conv = Convolution(config.convolved, config.conv, config.conv_bias)
        self.a_log, self.dt_bias, self.d = (nn.Parameter(torch.full((config.heads,), torch.nan)) for _ in range(3))
        self.norm = PartsNorm(inner, around.norm.eps, config.norm_groups) if config.norm else None
        self.out = Linear(inner, hidden, config.bias, writes=True)
        self.fills = {"a_log": log_counting, "dt_bias": steps_before_softplus, "d": constant(1.0)}

    def forward(self, x: Tensor, context: Context, cache: Recurrence | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        gate, *convolved, dt = (
            part if scale == 1 else part * scale
            for part, scale in zip(
                (self.gate(x), self.x(x), self.b(x), self.c(x), self.dt(x)), self.config.scales, strict=True
            )
        )
        mixed = F.silu(self.conv(torch.cat(convolved, -1), context, cache))
        shared = self.config.groups * self.config.state
        values, b, c = mixed.split((self.config.inner, shared, shared), -1)
        values = values.unflatten(-1, (self.config.heads, -1))  # [batch, seq, heads, head_dim]
        b, c = (part.unflatten(-1, (self.config.groups, -1)) for part in (b, c))  # [batch, seq, groups, state]
        heads = self.remember(values, b, c, self.steps(dt), context, cache)
        out: Tensor = self.out(self.gated((heads + self.d[:, None] * values).flatten(-2), gate).to(x.dtype))
        return out

    def steps(self, dt: Tensor) -> Tensor:
        """The time steps, float32 `[batch, seq, heads]`."""
        steps = F.softplus(wide(dt) + self.dt_bias)
        limits = self.config.dt_min, self.config.dt_max
        return steps if limits == (0.0, None) else steps.clamp(*limits)

    def remember(
        self, values: Tensor, b: Tensor, c: Tensor, steps: Tensor, context: Context, cache: Recurrence | None
    ) -> Tensor:
        """What each head reads from its state, `[batch, seq, heads, head_dim]`."""
        written, decay = values * steps[..., None], -self.a_log.exp() * steps
        if cache is None:
            return context.by_heads(self.read, c, b, written, decay)
        if context.new == 1:
            heads, cache.state = scan.step(c, b, written, decay, cache.state, context)
        else:
            heads, cache.state = scan.chunked(c, b, written, decay, cache.state, context, self.config.chunk)
        return heads

    def read(self, c: Tensor, b: Tensor, written: Tensor, decay: Tensor, context: Context) -> Tensor:
        """`remember` for rows that begin here."""
        return scan.chunked(c, b, written, decay, None, context, self.config.chunk)[0]

    def gated(self, heads: Tensor, gate: Tensor) -> Tensor:
        """The heads times silu(gate), normalised after that, before it, or not at all; float32."""
        gate = F.silu(wide(gate))
        if self.norm is None:
            return heads * gate
        normed: Tensor = self.norm(heads * gate) if self.config.gate_first else self.norm(heads) * gate
        return normed

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> Recurrence:
        """For `batch` rows of any length."""
        config = self.config
        return Recurrence(
            torch.zeros(batch, config.heads, config.state, config.head_dim, device=device),
            torch.zeros(batch, config.conv - 1, config.convolved, dtype=dtype, device=device),
        )


class PartsNorm(RMSNorm):
    """RMS normalisation of each of `parts` equal parts of the channels."""

    def __init__(self, channels: int, eps: float, parts: int) -> None:
        super().__init__(channels, eps)
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        """`[..., channels]` -> the same shape and dtype."""
        if self.parts == 1:
            return super().forward(x)
        split = wide(x).unflatten(-1, (self.parts, -1))
        normed = split * (split.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (normed.flatten(-2) * self.weight).to(x.dtype)
