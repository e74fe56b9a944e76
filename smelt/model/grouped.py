"""A matrix for each group of rows: the product that a mixture of experts is made of."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """`x[i] @ weight[e].T` for every row i of group e: `[rows, inputs]` -> `[rows, outputs]`.

    `weight` `[groups, outputs, inputs]`; `ends` int32 `[groups]`: the row where each group ends, the last one all rows.
    """
    if _native(x, weight):
        return F.grouped_mm(x, weight.transpose(1, 2), offs=ends)
    product: Tensor = _grouped(x, weight, ends)
    return product


def _native(x: Tensor, weight: Tensor) -> bool:
    """Whether PyTorch's own product serves: it wants rows of whole 16 bytes, and compiles in bfloat16 alone."""
    if any(size * x.element_size() % 16 for size in weight.shape[1:]):
        return False
    plain = x.dtype == torch.float32 and x.device.type == "cpu" and not torch.compiler.is_compiling()
    return x.dtype == torch.bfloat16 or plain


@custom_op("smelt::grouped_linear", mutates_args=())
def _grouped(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    out = x.new_empty(len(x), weight.shape[1])
    for group, rows in _groups(ends):
        torch.mm(x[rows], weight[group].t(), out=out[rows])
    return out


@custom_op("smelt::grouped_linear_backward", mutates_args=())
def _grouped_backward(grad: Tensor, x: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    grad_x, grad_weight = x.new_empty(x.shape), weight.new_empty(weight.shape)
    for group, rows in _groups(ends):
        torch.mm(grad[rows], weight[group], out=grad_x[rows])
        torch.mm(grad[rows].t(), x[rows], out=grad_weight[group])
    return grad_x, grad_weight


def _groups(ends: Tensor) -> list[tuple[int, slice]]:
    last = ends.tolist()
    return [(group, slice(start, end)) for group, (start, end) in enumerate(zip([0, *last], last, strict=False))]


@_grouped.register_fake
def _(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(len(x), weight.shape[1])


@_grouped_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
    return *_grouped_backward(grad, *ctx.saved_tensors), None


_grouped.register_autograd(_backward, setup_context=_keep)
