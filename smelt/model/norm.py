"""Root mean square normalisation (Zhang & Sennrich 2019), computed in float32 whatever the activations' dtype."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smelt.model.fills import constant
from smelt.model.wide import wide


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
    """`F.rms_norm` in float32, in place where it can be: on CPU, fresh memory costs more than the arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = _wide(x)
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return wide.mul_(scale).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normed, pulled = _wide(x).mul_(scale), _wide(grad)
        product = pulled * normed
        grad_weight = product.new_ones(scale.numel()) @ product.flatten(0, -2)
        pull = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        out = pulled.mul_(weight).addcmul_(normed, pull, value=-1).mul_(scale)
        return out.to(x.dtype), grad_weight, None


def _wide(x: Tensor) -> Tensor:
    """A copy of `x` in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
