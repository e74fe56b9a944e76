"""Losses that training follows beside the one it reports."""

from typing import Any

from torch import Tensor
from torch.autograd import Function


def with_gradient_of(losses: Tensor, extra: Tensor) -> Tensor:
    """The values of `losses` with the gradient of `losses + extra`, both float32 `[batch, seq]`.

    So the step's weighting of tokens, whatever it is, reaches the auxiliary losses too, and logs show the loss alone.
    """
    joined: Tensor = _WithGradientOf.apply(losses, extra)
    return joined


class _WithGradientOf(Function):
    @staticmethod
    def forward(ctx: Any, losses: Tensor, extra: Tensor) -> Tensor:
        return losses.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad
