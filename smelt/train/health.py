"""Losses that are no number: the first one is remembered on the device, and tells which step and which rank it was."""

import torch
from torch import Tensor

_NEVER = torch.iinfo(torch.int64).max


class LossLost(Exception):
    """The loss or the gradient norm was not finite at 1-based `step`: the loss of `rank`, which reads part `data_rank`
    of a batch, where it was that of one."""

    def __init__(self, step: int, rank: int | None, data_rank: int | None) -> None:
        super().__init__(f"step {step}")
        self.step, self.rank, self.data_rank = step, rank, data_rank


class Health:
    """Remembers the first step whose loss on this rank, or else the gradient norm of all, was not finite."""

    def __init__(self, device: torch.device) -> None:
        # Twice the step, and one more where this rank's loss was finite: so the least of all ranks' says whose it was.
        self._first = torch.full((), _NEVER, dtype=torch.int64, device=device)

    def note(self, step: int, loss: Tensor, grad_norm: Tensor) -> None:
        """Looks at both without waiting for the device."""
        fine = loss.isfinite()
        bad = ~fine | ~grad_norm.isfinite()
        self._first = torch.where(bad & (self._first == _NEVER), 2 * step + fine, self._first)

    @property
    def first(self) -> int:
        """The answer to compare with other ranks', for `LossLost`; waits for the device."""
        return int(self._first.item())


def check(firsts: list[tuple[int, int]]) -> None:
    """Raises LossLost if that is what `Health.first` and the `data_rank` of all ranks tell."""
    least = min(first for first, _ in firsts)
    if least == _NEVER:
        return
    if least % 2:
        raise LossLost(least // 2, None, None)
    rank = [first for first, _ in firsts].index(least)
    raise LossLost(least // 2, rank, firsts[rank][1])
