"""Cross-entropy of each token straight from hidden states, never holding the float32 logits of a whole large batch.

Tokens are taken in chunks whose float32 logits fit `BUDGET`. A batch of one chunk keeps its softmax for the backward
pass; of several, each chunk is computed again. The gradient is exact for any upstream gradient of the token losses.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
BUDGET = 64 * 2**20  # bytes of float32 logits in one chunk


def token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Loss of each token in nats: float32 `[batch, seq]`, 0 where the target is -100.

    `hidden` `[batch, seq, hidden]` in any dtype, to which `weight` `[vocab, hidden]` is cast for the product;
    `targets` int64 `[batch, seq]`. The softmax is float32.
    """
    loss: Tensor = _TokenLoss.apply(hidden.flatten(0, -2), weight, targets.flatten())
    return loss.view(targets.shape)


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        counted = targets != IGNORED
        labels = targets.where(counted, 0)[:, None]
        cast = weight.to(hidden.dtype)
        rows = max(1, BUDGET // (4 * len(weight)))
        ctx.rows, ctx.kept = rows, None
        losses = []
        for x, label in zip(hidden.split(rows), labels.split(rows), strict=True):
            loss, errors, total = _chunk(x, cast, label)
            losses.append(loss)
        if len(losses) == 1 and any(ctx.needs_input_grad):
            ctx.kept = errors, total
        ctx.save_for_backward(hidden, weight, labels, counted)
        return torch.cat(losses).flatten() * counted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, weight, labels, counted = ctx.saved_tensors
        cast = weight.to(hidden.dtype)
        grad = (grad * counted)[:, None]
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for first in range(0, len(hidden), ctx.rows):
            part = slice(first, first + ctx.rows)
            errors, total = ctx.kept or _chunk(hidden[part], cast, labels[part])[1:]
            errors, scale = errors.to(hidden.dtype), grad[part] / total
            grad_hidden[part] = (errors @ cast) * scale
            grad_weight += errors.T @ (hidden[part] * scale).to(hidden.dtype)
        return grad_hidden, grad_weight, None


def _chunk(x: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss `[tokens, 1]`, (softmax - onehot) * total `[tokens, vocab]` and total `[tokens, 1]`, all float32."""
    logits = (x @ weight.T).float()
    highest = logits.amax(-1, keepdim=True)
    chosen = logits.gather(1, labels) - highest
    exponentials = logits.sub_(highest).exp_()
    total = exponentials.sum(-1, keepdim=True)
    loss = total.log() - chosen
    return loss, exponentials.scatter_add_(1, labels, -total), total
