"""Expert networks: every token's rows sorted by expert, so that each expert is one dense product."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smelt.model.fills import constant
from smelt.model.grouped import grouped_linear
from smelt.model.linear import Linear
from smelt.recipe.parts.moe import MixtureOfExperts as Config

_CLAMP, _SLOPE = 7.0, 1.702  # gpt-oss


class Experts(nn.Module):
    """Networks side by side; a projection of all of them is one parameter, `[experts, outputs, inputs]`.

    `writes` names the projection whose result is added to the residual stream.
    """

    writes = ("down",)

    def __init__(self, config: Config, hidden: int) -> None:
        super().__init__()
        self.activation = config.activation
        gated, inner = config.activation != "relu2", (config.experts, config.width, hidden)
        self.gate = _parameter(*inner) if gated else None
        self.up = _parameter(*inner)
        self.down = _parameter(config.experts, hidden, config.width)
        self.gate_bias = _parameter(config.experts, config.width) if gated and config.bias else None
        self.up_bias = _parameter(config.experts, config.width) if config.bias else None
        self.down_bias = _parameter(config.experts, hidden) if config.bias else None
        self.fills = {name: constant(0.0) for name in ("gate_bias", "up_bias", "down_bias")}

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
        """The weighted sum of the chosen experts' outputs: `[tokens, hidden]` -> the same.

        `chosen` int64 and `weights` float32, both `[tokens, top_k]`; `counts` `[experts]`: choices of each expert. No
        choice is dropped, however many fall on one expert.
        """
        choices = Choices(chosen)
        expert, ends = choices.expert, counts.cumsum(0).to(torch.int32)
        rows = choices.spread(x)
        up = self._project(rows, self.up, self.up_bias, expert, ends)
        gate = up if self.gate is None else self._project(rows, self.gate, self.gate_bias, expert, ends)
        # The weight of a choice multiplies here, where a row is narrowest, and not behind the projection down.
        weight = choices.sorted(weights).to(x.dtype)[:, None]
        out = grouped_linear(activate(self.activation, gate, up) * weight, self.down.to(x.dtype), ends)
        if self.down_bias is not None:
            out = out + _of(expert, self.down_bias, x.dtype) * weight
        return choices.gather(out)

    def _project(self, rows: Tensor, weight: Tensor, bias: Tensor | None, expert: Tensor, ends: Tensor) -> Tensor:
        out = grouped_linear(rows, weight.to(rows.dtype), ends)
        return out if bias is None else out + _of(expert, bias, rows.dtype)


class Choices:
    """The choices of tokens, `[tokens, top_k]`, sorted by `expert`: a row for each choice."""

    def __init__(self, chosen: Tensor) -> None:
        self.expert, self.order = chosen.flatten().sort(stable=True)  # [tokens * top_k]
        index = torch.arange(len(self.order), device=chosen.device)
        self.place = torch.empty_like(self.order).scatter_(0, self.order, index).view_as(chosen)

    def spread(self, x: Tensor) -> Tensor:
        """`[tokens, hidden]` -> `[tokens * top_k, hidden]`: each token's row for each of its choices."""
        rows: Tensor = _Spread.apply(x, self.order, self.place)
        return rows

    def sorted(self, x: Tensor) -> Tensor:
        """What every choice has, `[tokens, top_k]` -> `[tokens * top_k]`."""
        return x.flatten().index_select(0, self.order)

    def gather(self, rows: Tensor) -> Tensor:
        """The sum of each token's rows, `[tokens * top_k, hidden]` -> `[tokens, hidden]`."""
        summed: Tensor = _Gather.apply(rows, self.order, self.place)
        return summed


class Shared(nn.Module):
    """The network beside the experts: one more of them, that every token passes."""

    def __init__(self, activation: str, width: int, hidden: int) -> None:
        super().__init__()
        self.activation = activation
        self.gate = Linear(hidden, width) if activation != "relu2" else None
        self.up = Linear(hidden, width)
        self.down = Linear(width, hidden, writes=True)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., hidden]` -> the same."""
        up = self.up(x)
        out: Tensor = self.down(activate(self.activation, up if self.gate is None else self.gate(x), up))
        return out


def activate(kind: str, gate: Tensor, up: Tensor) -> Tensor:
    """What a network of this `activation` hands to its projection down; `relu2` has no gate."""
    if kind == "swiglu":
        return F.silu(gate) * up
    if kind == "relu2":
        return F.relu(up).square()
    gate, up = gate.clamp(max=_CLAMP), up.clamp(-_CLAMP, _CLAMP)
    return (up + 1) * gate * torch.sigmoid(_SLOPE * gate)


class _Spread(torch.autograd.Function):
    """`x[order // top_k]`: a token's row for each of its choices. Its backward gathers, where autograd's scatters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, order // place.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _sum(grad, *ctx.saved_tensors), None, None


class _Gather(torch.autograd.Function):
    """The sum of each token's rows: the transpose of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        ctx.top_k = place.shape[1]
        return _sum(rows, place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return grad.index_select(0, order // ctx.top_k), None, None


def _sum(rows: Tensor, place: Tensor) -> Tensor:
    return F.embedding_bag(place, rows, mode="sum")  # one pass: `rows[place].sum(1)` takes several times as long


def _of(expert: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """The bias of each row's expert, cast last: its gradient, a sum over many rows, is summed in float32."""
    return F.embedding(expert, bias).to(dtype)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, torch.nan))
