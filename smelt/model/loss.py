"""Cross-entropy of each token straight from hidden states, never holding the logits of a whole large batch.

Tokens are taken in chunks, and a chunk's gradient is computed while its logits are at hand, as if every token's loss
were to be followed with the same weight. Training does just that (a mean over tokens), so the backward pass only
multiplies; any other weighting computes the chunks again. Either way the gradient is exact.
"""

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
CHUNK = {"cpu": 2**24, "cuda": 2**30}  # bytes of one chunk's logits, in the dtype of the hidden states,
CHUNK_ROWS = 512  # but at least these tokens, as each chunk adds to the gradient of all weights
TILE = 2**22  # bytes of the rows whose exponentials are taken at once, small enough for a CPU's cache,
TILE_ROWS = 32  # but at least these
BLOCK = 4096  # vocabulary entries whose weight gradient is added at once, for the same reason


def token_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> Tensor:
    """Loss of each token in nats: `loss_and_log_z` without the second."""
    return loss_and_log_z(hidden, weight, targets, scale, softcap, z_loss)[0]


def loss_and_log_z(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Loss of each token in nats, 0 where the target is -100, and the logsumexp of its logits, which has no gradient.

    `hidden` `[batch, seq, hidden]` in any dtype, to which `weight` `[vocab, hidden]` is cast for the product; `targets`
    int64 `[batch, seq]`. Logits are `hidden @ weight.T * scale`, then softcap * tanh(logits / softcap); they and the
    softmax are float32 (float64 for float64 states), as are both results, `[batch, seq]`. The gradient is that of
    loss + z_loss * log_z ** 2 (Chowdhery et al. 2022, section 5); the value returned is the loss alone.
    """
    rows = hidden.flatten(0, -2)
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss, log_z, *_ = _token_loss(rows, weight, targets.flatten(), scale, softcap or 0.0, z_loss, wanted)
    return loss.view(targets.shape), log_z.view(targets.shape)


@torch.library.custom_op("smelt::token_loss", mutates_args=())
def _token_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, softcap: float, z_loss: float, wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and logsumexp `[tokens]`; the gradient of the sum of all losses by hidden states and weight if `wanted`."""
    upstream = torch.ones_like(targets, dtype=_exact(hidden)) if wanted else None
    return _chunks(hidden, weight, targets, upstream, scale, softcap, z_loss)


@_token_loss.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, softcap: float, z_loss: float, wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss = targets.new_empty(targets.shape, dtype=_exact(hidden))
    grads = (torch.empty_like(each) if wanted else each.new_empty(0) for each in (hidden, weight))
    return loss, torch.empty_like(loss), *grads


@torch.library.custom_op("smelt::token_loss_backward", mutates_args=())
def _backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    grad_hidden: Tensor,
    grad_weight: Tensor,
    scale: float,
    softcap: float,
    z_loss: float,
) -> tuple[Tensor, Tensor]:
    """Gradients for the upstream gradient `grad` `[tokens]`, from those for an upstream gradient of 1."""
    counted = targets != IGNORED
    least, most = grad.where(counted, torch.inf).amin(), grad.where(counted, -torch.inf).amax()
    if least < most:
        return _chunks(hidden, weight, targets, grad, scale, softcap, z_loss)[2:]
    same = most.where(counted.any(), 0.0)
    return grad_hidden * same, grad_weight * same


@_backward.register_fake
def _(grad: Tensor, hidden: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(hidden), torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, targets, *ctx.shape, _ = inputs
    _, log_z, grad_hidden, grad_weight = output
    ctx.save_for_backward(hidden, weight, targets, grad_hidden, grad_weight)
    ctx.mark_non_differentiable(log_z, grad_hidden, grad_weight)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor, *rest: None) -> tuple[Tensor | None, ...]:
    return *_backward(grad, *ctx.saved_tensors, *ctx.shape), None, None, None, None, None


_token_loss.register_autograd(_differentiate, setup_context=_save)


def _chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    upstream: Tensor | None,
    scale: float,
    softcap: float,
    z_loss: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, logsumexp, and both gradients for the upstream gradient `[tokens]`; empty gradients for None."""
    exact, cast = _exact(hidden), weight.to(hidden.dtype)
    counted = targets != IGNORED
    labels = targets.where(counted, 0)[:, None]
    loss, log_z = (torch.empty(len(hidden), dtype=exact, device=hidden.device) for _ in range(2))
    grad_hidden, grad_weight = hidden.new_empty(0), weight.new_empty(0)
    if upstream is not None:
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        upstream = (upstream.where(counted, 0) * scale).to(exact)[:, None]
    rows = max(CHUNK_ROWS, CHUNK.get(hidden.device.type, 2**24) // (cast.element_size() * len(cast)))
    logits = hidden.new_empty(min(rows, len(hidden)), len(cast))
    for first in range(0, len(hidden), rows):
        part = slice(first, first + rows)
        x = hidden[part]
        errors = torch.mm(x, cast.T, out=logits[: len(x)])
        totals = _softmax(errors, labels[part], loss[part], log_z[part], scale, softcap, z_loss, upstream is not None)
        if upstream is not None:
            pull = upstream[part] / totals
            grad_hidden[part] = (errors @ cast) * pull
            x = (x * pull).to(x.dtype)
            for low in range(0, len(cast), BLOCK):
                grad_weight[low : low + BLOCK] += errors[:, low : low + BLOCK].T @ x
    return loss.mul_(counted), log_z, grad_hidden, grad_weight


def _softmax(
    logits: Tensor,
    labels: Tensor,
    loss: Tensor,
    log_z: Tensor,
    scale: float,
    softcap: float,
    z_loss: float,
    wanted: bool,
) -> Tensor:
    """Write `loss` and `log_z` `[tokens]` of raw `logits` `[tokens, vocab]`, by which the logits are overwritten if
    `wanted` with the gradient of loss + z_loss * log_z ** 2 by them, times the denominators `[tokens, 1]` returned."""
    vocab = logits.shape[1]
    rows = max(TILE_ROWS, TILE // (loss.element_size() * vocab))
    room = loss.new_empty(min(rows, len(logits)), vocab)
    totals = torch.empty_like(loss)[:, None]
    for first in range(0, len(logits), rows):
        part = slice(first, first + rows)
        label, total = labels[part], totals[part]
        x = room[: len(label)].copy_(logits[part])
        if scale != 1:
            x.mul_(scale)
        slope = None
        if softcap:
            bounded = x.div_(softcap).tanh_()
            slope = 1 - bounded.square()
            x.mul_(softcap)
        highest = x.amax(1, keepdim=True)
        chosen = x.gather(1, label) - highest
        x.sub_(highest).exp_()
        torch.sum(x, 1, keepdim=True, out=total)
        loss[part] = (total.log() - chosen)[:, 0]
        log_z[part] = (total.log() + highest)[:, 0]
        if wanted:
            if z_loss:
                x.mul_(1 + 2 * z_loss * log_z[part, None])
            x.scatter_add_(1, label, -total)
            if slope is not None:
                x.mul_(slope)
            logits[part] = x
    return totals


def _exact(hidden: Tensor) -> torch.dtype:
    """What the softmax is computed in."""
    return torch.promote_types(hidden.dtype, torch.float32)
