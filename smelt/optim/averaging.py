"""Averages of weights: one that goes along with a run, and the mean of several checkpoints."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from smelt.model.tensor_files import Source, Spec
from smelt.optim.rules import local

AVERAGE = "average"


@torch.no_grad()
def follow(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """To call after each step: moves the average of every parameter towards it, by a share of 1 - `decay`.

    The average starts as the weights after the first step. It lies in the optimizer's state, laid out as the parameter
    is, and so is saved and restored with it, as `average.NAME`.
    """
    averages, weights = [], []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if AVERAGE in state:
                averages.append(local(state[AVERAGE]))
                weights.append(local(parameter))
            else:
                state[AVERAGE] = parameter.detach().clone()
    if averages:
        torch._foreach_lerp_(averages, weights, 1 - decay)


class Followed:
    """The weights of a checkpoint with the averages in its optimizer's state in their place, as a `Source`.

    What no optimizer moves, such as the balancing bias of experts, has no average and stays.
    """

    def __init__(self, weights: Source, state: Source) -> None:
        self._weights, self._state = weights, state
        self.specs: Mapping[str, Spec] = weights.specs

    def read(self, name: str, entry: int | None = None) -> Tensor:
        """See `Source`."""
        average = f"{AVERAGE}.{name}"
        return self._state.read(average, entry) if average in self._state.specs else self._weights.read(name, entry)


class Mean:
    """The mean of tensors of the same names and shapes, as a `Source`, summed in float64 with one of them in memory."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.specs: Mapping[str, Spec] = sources[0].specs

    def read(self, name: str, entry: int | None = None) -> Tensor:
        """See `Source`."""
        total = self._sources[0].read(name, entry).double()
        for source in self._sources[1:]:
            total += source.read(name, entry)
        return (total / len(self._sources)).to(self.specs[name].dtype)
