"""Steps whose loss or gradient norm is an outlier are passed over, decided on the device without waiting for it."""

from typing import Any

import torch
from torch import Tensor

from smelt.errors import InputError
from smelt.optim.rules import Ruled, local
from smelt.recipe.sections.optimizer import SkipStep

_PREFIX = "skip."


class Skip:
    """Judges each step by the steps before it; half a window must have counted before anything finite is an outlier.

    All it knows is in tensors: the last losses and gradient norms that counted, float64 `[2, window]`, how many there
    were, how many steps were skipped, and how many of these in a row just now.
    """

    def __init__(self, section: SkipStep, device: torch.device) -> None:
        self._section = section
        self._seen = torch.zeros(2, section.window, dtype=torch.float64, device=device)
        self._count, self.skipped, self._in_a_row = torch.zeros(3, dtype=torch.int64, device=device).unbind()

    @torch.no_grad()
    def decide(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Whether to skip this step, boolean on the device; both arguments are one number, equal on all ranks."""
        window = self._section.window
        now = torch.stack([local(loss).detach().double(), local(grad_norm).detach().double()])
        finite = now.isfinite().all()
        known = (torch.arange(window, device=now.device) < self._count).double()
        among = known.sum().clamp(min=1)
        mean = (self._seen * known).sum(1) / among
        spread = (((self._seen - mean[:, None]) * known).square().sum(1) / among).sqrt()
        judged = self._count >= (window + 1) // 2
        new_level = finite & (self._in_a_row >= self._section.patience)
        skip = ~finite | (judged & ~new_level & (now > mean + self._section.sigmas * spread).any())
        self._count *= ~new_level
        here = (torch.arange(window, device=now.device) == self._count % window) & ~skip
        self._seen.copy_(torch.where(here, now[:, None], self._seen))
        self._count += ~skip
        self.skipped += skip
        self._in_a_row.copy_((self._in_a_row + finite) * skip)
        return skip

    def tensors(self) -> dict[str, Tensor]:
        """Everything it knows, for saving beside the optimizer's state."""
        numbers = torch.stack([self._count, self.skipped, self._in_a_row])
        return {f"{_PREFIX}seen": self._seen, f"{_PREFIX}numbers": numbers}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave; without it, or with another window, judging starts afresh."""
        seen = tensors.get(f"{_PREFIX}seen")
        if seen is not None and seen.shape == self._seen.shape:
            self._seen.copy_(seen)
            for mine, saved in zip(
                (self._count, self.skipped, self._in_a_row), tensors[f"{_PREFIX}numbers"], strict=True
            ):
                mine.copy_(saved)


def update(optimizer: torch.optim.Optimizer, skip: Tensor | None = None) -> None:
    """Take the optimizer's step; where `skip` is true, parameters and state stay bit for bit as they are."""
    if isinstance(optimizer, Ruled):
        optimizer.skip = skip
        optimizer.step()
    elif skip is None:
        optimizer.step()
    else:
        _update_or_restore(optimizer, skip)


@torch.no_grad()
def _update_or_restore(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """For classes that know no skip: step, then take back; costs a copy of the parameters and the state."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    before = {param: local(param).clone() for param in params}
    kept = {
        param: {key: _copied(optimizer, key, value) for key, value in optimizer.state[param].items()}
        for param in params
    }
    optimizer.step()
    for param in params:
        local(param).copy_(torch.where(skip, before[param], local(param)))
        state = optimizer.state[param]
        new = state.keys() - kept[param].keys()
        if new and bool(skip):  # waits for the device, in the one step in which state appears
            optimizer.state[param] = {key: value for key, value in state.items() if key not in new}
        for key, old in kept[param].items():
            if isinstance(old, Tensor):
                now = local(state[key])
                now.copy_(torch.where(skip.to(now.device), old, now))


def _copied(optimizer: torch.optim.Optimizer, key: str, value: Any) -> Any:
    if value is not None and not isinstance(value, Tensor):
        raise InputError(
            f"train.skip_step: {type(optimizer).__name__} keeps '{key}' as a {type(value).__name__}, which a skipped "
            "step cannot take back; choose another optimizer or drop skip_step"
        )
    return local(value).clone() if isinstance(value, Tensor) else None
