"""How the state of linear attention fades: the gates of the literature, each as a module that turns the layer's input
into the decays of its tokens. W, W1 and W2 are matrices of the layer; none has a bias.

| gate | factor on the state, `[key_dim, value_dim]` |
|---|---|
| none | 1 |
| lightning | exp(-2^(-8 h / heads)) for head h = 1, 2...: MiniMax-01's slopes, the same in every layer |
| mamba2 | exp(-softplus(x W) exp(a)), a number a head |
| mlstm | sigmoid(x W), a number a head |
| retention | sigmoid(x W)^(1 / tau), a number a head |
| rwkv6 | exp(-exp(x W)), a number a key channel |
| gla | sigmoid(x W1 W2)^(1 / tau), a number a key channel |
| hgrn2 | floor + (1 - floor) sigmoid(x W), a number a key channel |
| gateloop | sigmoid(x W1) exp(i x W2), a complex number a key channel |
| dfw | the outer product of sigmoid(x W1) by key channel and sigmoid(x W2) by value channel |
| mamba | exp(-softplus(x W1 W2) exp(a)), the softplus by value channel, a by key and value channel |
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model import channels, elements, scan, turning
from smelt.model.chunks import FADED
from smelt.model.context import Context
from smelt.model.fills import Fill
from smelt.model.linear import Linear
from smelt.model.time_scales import log_steps, log_steps_along
from smelt.model.wide import wide
from smelt.recipe.parts.linear import LinearAttention


class Decay(Protocol):
    """The decays of the new tokens, and the two ways to compute with them; shapes as in `scan`."""

    def chunked(
        self, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, context: Context, most: int
    ) -> tuple[Tensor, Tensor]:
        """What every token reads, and the state after the last."""

    def step(self, q: Tensor, k: Tensor, v: Tensor, state: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """The same for a single new token."""


class HeadDecay(NamedTuple):
    """One factor a head."""

    logarithm: Tensor  # [batch, seq, heads]

    def chunked(
        self, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, context: Context, most: int
    ) -> tuple[Tensor, Tensor]:
        return scan.chunked(q, k, v, self.logarithm, state, context, most)

    def step(self, q: Tensor, k: Tensor, v: Tensor, state: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        return scan.step(q, k, v, self.logarithm, state, context)


class ChannelDecay(NamedTuple):
    """One factor a key channel, and one a value channel."""

    keys: Tensor  # [batch, seq, heads, key_dim], logarithms
    values: Tensor | None = None  # [batch, seq, heads, value_dim], logarithms

    def chunked(
        self, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, context: Context, most: int
    ) -> tuple[Tensor, Tensor]:
        return channels.chunked(q, k, v, self.keys, self.values, state, context, most)

    def step(self, q: Tensor, k: Tensor, v: Tensor, state: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        return channels.step(q, k, v, self.keys, self.values, state, context)


class TurningDecay(NamedTuple):
    """One complex factor a key channel."""

    keys: Tensor  # [batch, seq, heads, key_dim], logarithms
    phase: Tensor  # [batch, seq, heads, key_dim], radians

    def chunked(
        self, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, context: Context, most: int
    ) -> tuple[Tensor, Tensor]:
        return turning.chunked(q, k, v, self.keys, self.phase, state, context, most)

    def step(self, q: Tensor, k: Tensor, v: Tensor, state: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        return turning.step(q, k, v, self.keys, self.phase, state, context)


class ElementDecay(NamedTuple):
    """One factor an element of the state: exp(-rates * steps)."""

    steps: Tensor  # [batch, seq, heads, value_dim]
    rates: Tensor  # [heads, key_dim, value_dim]

    def chunked(
        self, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, context: Context, most: int
    ) -> tuple[Tensor, Tensor]:
        return elements.chunked(q, k, v, self.steps, self.rates, state, context, most)

    def step(self, q: Tensor, k: Tensor, v: Tensor, state: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        return elements.step(q, k, v, self.steps, self.rates, state, context)


def parted(decay: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that a decay of this file is made of: those of every token, and those of every head."""
    fields = [x for x in decay if x is not None]
    tokens = len(fields) - isinstance(decay, ElementDecay)
    return fields[:tokens], fields[tokens:]


class Fixed(nn.Module):
    """none, lightning: the same at every token."""

    def __init__(self, config: LinearAttention, hidden: int) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor) -> Decay:
        """`[batch, seq, hidden]` -> decays."""
        heads, dtype = self.config.heads, torch.promote_types(x.dtype, torch.float32)
        if self.config.gate == "none":
            rates = x.new_zeros(heads, dtype=dtype)
        else:
            rates = torch.exp2(-8 / heads * torch.arange(1, heads + 1, device=x.device)).to(dtype)
        return HeadDecay(-rates.expand(*x.shape[:2], heads))


class ByHead(nn.Module):
    """mamba2, mlstm, retention."""

    def __init__(self, config: LinearAttention, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.w = Linear(hidden, config.heads)
        self.a = nn.Parameter(torch.full((config.heads,), torch.nan)) if config.gate == "mamba2" else None
        self.fills: dict[str, Fill] = {"a": log_steps}

    def forward(self, x: Tensor) -> Decay:
        """`[batch, seq, hidden]` -> decays."""
        x = wide(self.w(x))
        if self.a is not None:
            return HeadDecay(-F.softplus(x) * self.a.exp())
        return HeadDecay(F.logsigmoid(x) / (self.config.tau if self.config.gate == "retention" else 1.0))


class ByKey(nn.Module):
    """rwkv6, gla, hgrn2."""

    def __init__(self, config: LinearAttention, hidden: int) -> None:
        super().__init__()
        self.config = config
        low_rank = config.gate == "gla"
        self.w1 = Linear(hidden, config.rank) if low_rank else None
        self.w = Linear(config.rank if low_rank else hidden, config.keys)

    def forward(self, x: Tensor) -> Decay:
        """`[batch, seq, hidden]` -> decays."""
        x = wide(self.w(x if self.w1 is None else self.w1(x))).unflatten(-1, (self.config.heads, -1))
        return ChannelDecay(self.logarithm(x))

    def logarithm(self, x: Tensor) -> Tensor:
        if self.config.gate == "rwkv6":
            return -x.clamp(max=math.log(-FADED)).exp()  # beyond, exp would end as inf, and its gradient as NaN
        if self.config.gate == "gla":
            return F.logsigmoid(x) / self.config.tau
        if self.config.floor == 0:
            return F.logsigmoid(x)
        return (self.config.floor + (1 - self.config.floor) * x.sigmoid()).log()


class GateLoop(nn.Module):
    """gateloop (Katsch 2023)."""

    def __init__(self, config: LinearAttention, hidden: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.w1, self.w2 = Linear(hidden, config.keys), Linear(hidden, config.keys)

    def forward(self, x: Tensor) -> Decay:
        """`[batch, seq, hidden]` -> decays."""
        size, phase = (wide(w(x)).unflatten(-1, (self.heads, -1)) for w in (self.w1, self.w2))
        return TurningDecay(F.logsigmoid(size), phase)


class Outer(nn.Module):
    """dfw, decaying fast weights (Mao 2022)."""

    def __init__(self, config: LinearAttention, hidden: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.w1, self.w2 = Linear(hidden, config.keys), Linear(hidden, config.values)

    def forward(self, x: Tensor) -> Decay:
        """`[batch, seq, hidden]` -> decays."""
        keys, values = (F.logsigmoid(wide(w(x))).unflatten(-1, (self.heads, -1)) for w in (self.w1, self.w2))
        return ChannelDecay(keys, values)


class ByElement(nn.Module):
    """mamba (Gu & Dao 2023)."""

    def __init__(self, config: LinearAttention, hidden: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.w1, self.w2 = Linear(hidden, config.rank), Linear(config.rank, config.values)
        self.a = nn.Parameter(torch.full((config.heads, config.key_dim, config.value_dim), torch.nan))
        self.fills: dict[str, Fill] = {"a": log_steps_along(config.key_dim, config.value_dim)}

    def forward(self, x: Tensor) -> Decay:
        """`[batch, seq, hidden]` -> decays."""
        steps = F.softplus(wide(self.w2(self.w1(x)))).unflatten(-1, (self.heads, -1))
        return ElementDecay(steps, self.a.exp())


GATES: dict[str, Callable[[LinearAttention, int], nn.Module]] = {
    "none": Fixed,
    "lightning": Fixed,
    "mamba2": ByHead,
    "mlstm": ByHead,
    "retention": ByHead,
    "rwkv6": ByKey,
    "gla": ByKey,
    "hgrn2": ByKey,
    "gateloop": GateLoop,
    "dfw": Outer,
    "mamba": ByElement,
}
