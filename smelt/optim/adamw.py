"""AdamW by PyTorch's fused kernel, which obeys a skip by itself."""

from typing import Any

from torch.optim.adamw import adamw

from smelt.optim.rules import Members, Rule


def _update(group: dict[str, Any], members: Members) -> None:
    beta1, beta2 = group["betas"]
    adamw(
        members.pieces,
        members.grads,
        members.slots["exp_avg"],
        members.slots["exp_avg_sq"],
        [],
        members.steps,
        fused=True,
        grad_scale=None,
        found_inf=None if members.skip is None else members.skip.float(),
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


ADAMW = Rule(("exp_avg", "exp_avg_sq"), _update)
