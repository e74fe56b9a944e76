"""Causal attention for short rows on CPU, as batched products over blocks of queries.

For rows up to `LONGEST` tokens it takes half to two thirds of the time of PyTorch's CPU kernel, forward and backward:
a block of queries multiplies only the keys up to its end, the query heads of a group share one product, and the
probabilities are kept for the backward pass (about seq / 2 floats a token and head) instead of computed again.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 32  # queries
LONGEST = 512


class Blockwise(torch.autograd.Function):
    """softmax(q k^T / sqrt(head_dim)) v over the keys not after the query.

    Inside, q and whatever has its shape is `[rows, group, seq, head_dim]` and k, v `[rows, seq, head_dim]`, where rows
    are batch * kv_heads and group is heads / kv_heads.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.shape = q.shape[0], k.shape[2]
        scaled = _inward(q, k.shape[2]).mul_(q.shape[-1] ** -0.5)
        keys, values = _inward(k, k.shape[2]).squeeze(1), _inward(v, k.shape[2]).squeeze(1)
        out = torch.empty_like(scaled)
        kept = []
        for first, end in _blocks(q.shape[1]):
            scores = _stack(scaled, first, end) @ keys[:, :end].transpose(1, 2)
            triangle = torch.full((end - first, end - first), -torch.inf).triu_(1)
            scores.unflatten(1, (-1, end - first))[..., first:].add_(triangle)
            probabilities = scores.softmax(-1)
            out[:, :, first:end] = (probabilities @ values[:, :end]).unflatten(1, (-1, end - first))
            kept.append(probabilities)
        ctx.save_for_backward(scaled, keys, values, out, *kept)
        return _outward(out, *ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, keys, values, out, *kept = ctx.saved_tensors
        grad = _inward(grad, ctx.shape[1])
        inner = (grad * out).sum(-1, keepdim=True)  # [rows, group, seq, 1]
        grad_q, grad_k, grad_v = torch.empty_like(scaled), torch.zeros_like(keys), torch.zeros_like(values)
        for (first, end), probabilities in zip(_blocks(scaled.shape[2]), kept, strict=True):
            block = _stack(grad, first, end)
            grad_v[:, :end] += probabilities.transpose(1, 2) @ block
            grad_scores = (block @ values[:, :end].transpose(1, 2)).sub_(_stack(inner, first, end)).mul_(probabilities)
            grad_q[:, :, first:end] = (grad_scores @ keys[:, :end]).unflatten(1, (-1, end - first))
            grad_k[:, :end] += grad_scores.transpose(1, 2) @ _stack(scaled, first, end)
        grad_q.mul_(scaled.shape[-1] ** -0.5)
        return (
            _outward(grad_q, *ctx.shape),
            _outward(grad_k[:, None], *ctx.shape),
            _outward(grad_v[:, None], *ctx.shape),
        )


def _blocks(sequence: int) -> list[tuple[int, int]]:
    return [(first, min(first + BLOCK, sequence)) for first in range(0, sequence, BLOCK)]


def _stack(x: Tensor, first: int, end: int) -> Tensor:
    """Queries `first` to `end` of all heads of a group under each other: `[rows, group * (end - first), channels]`."""
    return x[:, :, first:end].flatten(1, 2)


def _inward(x: Tensor, kv_heads: int) -> Tensor:
    """`[batch, seq, heads, head_dim]` -> a copy `[batch * kv_heads, heads / kv_heads, seq, head_dim]`."""
    return (
        x.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1).clone(memory_format=torch.contiguous_format)
    )


def _outward(x: Tensor, batch: int, kv_heads: int) -> Tensor:
    """The way back from `_inward`, as a view."""
    return x.unflatten(0, (batch, kv_heads)).permute(0, 3, 1, 2, 4).flatten(2, 3)
