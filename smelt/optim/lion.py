"""Lion (Chen et al. 2023): a step of the same size for every element, in the direction of an interpolated momentum."""

from typing import Any

from smelt.optim.rules import Members, Rule


def _update(group: dict[str, Any], members: Members) -> None:
    kept, lr = members.kept(), group["lr"]
    beta1, beta2 = group["betas"]
    for step in members.steps:
        step += kept
    for weight, grad, average in zip(members.pieces, members.grads, members.slots["exp_avg"], strict=True):
        direction = average.lerp(grad, 1 - beta1).sign_()
        weight.mul_((1 - lr * group["weight_decay"]) ** kept).add_(members.unless_skipped(direction), alpha=-lr)
        average.lerp_(grad, (1 - beta2) * kept)


LION = Rule(("exp_avg",), _update)
