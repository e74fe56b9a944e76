"""AdEMAMix (Pagliardini et al. 2024): AdamW with a second, slow average of gradients beside the fast one."""

import math
from typing import Any

import torch

from smelt.optim.rules import Members, Rule

_SLOTS = ("exp_avg", "exp_avg_slow", "exp_avg_sq")


def _update(group: dict[str, Any], members: Members) -> None:
    kept, lr = members.kept(), group["lr"]
    beta1, beta2, beta3 = group["betas"]
    for step in members.steps:
        step += kept
    taken = torch.stack(members.steps).double().clamp_(min=1)  # [parameters]; 0 if the very first step is skipped
    done = (taken / group["warmup_steps"]).clamp_(max=1) if group["warmup_steps"] else torch.ones_like(taken)
    betas3 = _warmed(beta1, beta3, done)
    scalars = ((1 - betas3) * kept, group["alpha"] * done, 1 - beta1**taken, (1 - beta2**taken).sqrt())
    per_parameter = torch.stack(scalars, 1).to(members.pieces[0].dtype)
    slots = (members.slots[slot] for slot in _SLOTS)
    for weight, grad, fast, slow, square, (share, alpha, unbias, unbias_root) in zip(
        members.pieces, members.grads, *slots, per_parameter, strict=True
    ):
        fast.lerp_(grad, (1 - beta1) * kept)
        slow.lerp_(grad, share)
        square.mul_(beta2**kept).addcmul_(grad, grad, value=1 - beta2)
        size = square.sqrt().div_(unbias_root).add_(group["eps"])
        change = members.unless_skipped(slow.mul(alpha).addcdiv_(fast, unbias))
        weight.mul_((1 - lr * group["weight_decay"]) ** kept).addcdiv_(change, size, value=-lr)


def _warmed(start: float, end: float, done: torch.Tensor) -> torch.Tensor:
    """From `start` to `end` as `done` goes from 0 to 1, so that the average's half-life grows linearly."""
    if not start or not end:
        return torch.full_like(done, end)
    first, last = math.log(start), math.log(end)
    return (first * last / ((1 - done) * last + done * first)).exp()


ADEMAMIX = Rule(_SLOTS, _update)
