"""Root mean square normalisation (Zhang & Sennrich 2019), computed in float32 whatever the activations' dtype."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smelt.model.fills import constant
from smelt.model.wide import wide

TILE = 2**18  # numbers normed at once on a CPU, so that float32 copies stay in its cache


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis; `zero_centered`: times 1 + weight."""

    def __init__(self, channels: int, eps: float, zero_centered: bool = False) -> None:
        super().__init__()
        self.eps, self.zero_centered = eps, zero_centered
        self.weight = nn.Parameter(torch.full((channels,), torch.nan))
        self.fills = {"weight": constant(0.0 if zero_centered else 1.0)}

    def forward(self, x: Tensor) -> Tensor:
        """`[..., channels]` -> the same shape and dtype."""
        weight = 1 + self.weight if self.zero_centered else self.weight
        if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            normed: Tensor = _RMSNorm.apply(x, weight, self.eps)
            return normed
        return F.rms_norm(wide(x), weight.shape, weight, self.eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """`F.rms_norm` in float32, by tiles: on CPU, fresh memory costs more than the arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, scales = x.new_empty(x.shape), _empty(x, *x.shape[:-1], 1)
        (room,), tiles = _tiles(1, x, scales, out)
        for part, scale, place in tiles:
            wide = room[: len(part)].copy_(part)
            torch.linalg.vector_norm(wide, dim=-1, keepdim=True, out=scale)
            scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
            place.copy_(wide.mul_(scale).mul_(weight))
        ctx.save_for_backward(x, weight, scales)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scales = ctx.saved_tensors
        out, grad_weight = x.new_empty(x.shape), _empty(x, x.shape[-1]).zero_()
        rooms, tiles = _tiles(3, x, grad, scales, out)
        for part, pulled, scale, place in tiles:
            normed, wide, product = (room[: len(part)] for room in rooms)
            normed.copy_(part).mul_(scale)
            torch.mul(wide.copy_(pulled), normed, out=product)
            grad_weight += product.new_ones(len(part)) @ product
            pull = (product @ weight.to(product.dtype)).div_(x.shape[-1]).unsqueeze(-1)
            place.copy_(wide.mul_(weight).addcmul_(normed, pull, value=-1).mul_(scale))
        return out, grad_weight.to(weight.dtype), None


def _tiles(rooms: int, x: Tensor, *others: Tensor) -> tuple[Tensor, Iterator[tuple[Tensor, ...]]]:
    """Room for as many tiles in float32 at least, and the tiles of all tensors: rows of the last axis."""
    rows = max(1, TILE // x.shape[-1])
    parts = (each.flatten(0, -2).split(rows) for each in (x, *others))
    return _empty(x, rooms, min(rows, x[..., 0].numel()), x.shape[-1]), zip(*parts, strict=True)


def _empty(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=torch.promote_types(x.dtype, torch.float32))
