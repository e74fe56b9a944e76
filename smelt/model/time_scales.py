"""Initial values that set how long a layer with a state remembers: a spread of time scales instead of one."""

import math

import torch
from torch import Tensor

from smelt.model.fills import Fill


def between(low: float, high: float) -> Fill:
    """Uniform between `low` and `high`."""
    return lambda uniform, index: low + (high - low) * uniform


def log_between(low: float, high: float) -> Fill:
    """The logarithm of a number uniform between `low` and `high`."""
    return lambda uniform, index: (low + (high - low) * uniform).log()


def log_counting(uniform: Tensor, index: Tensor) -> Tensor:
    """log(1), log(2), log(3)...: the decay rates of Mamba-2's heads."""
    return (index + 1).double().log()


def steps_before_softplus(uniform: Tensor, index: Tensor) -> Tensor:
    """softplus of it is a time step log-uniform between 0.001 and 0.1 (Gu & Dao 2023)."""
    step = (math.log(0.001) + math.log(100) * uniform).exp()
    return step + torch.log(-torch.expm1(-step))


def log_steps(uniform: Tensor, index: Tensor) -> Tensor:
    """The logarithm of a rate log-uniform between 0.001 and 0.1 a token."""
    return math.log(0.001) + math.log(100) * uniform


def log_steps_along(channels: int, inside: int) -> Fill:
    """The logarithms of rates log-spaced from 0.001 to 0.1 along an axis of `channels` with `inside` elements each."""
    return lambda uniform, index: math.log(0.001) + math.log(100) * (index // inside % channels) / max(channels - 1, 1)
