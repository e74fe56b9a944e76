"""Initial values that are not the usual normal draw. A module lists them by parameter name in its `fills`.

A fill is called with float64 uniforms in (0, 1) and the flat indices of the same elements, and returns their values:
any slice of a parameter can be filled alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Fill = Callable[[Tensor, Tensor], Tensor]


def constant(value: float) -> Fill:
    """The same value everywhere."""
    return lambda uniform, index: torch.full_like(uniform, value)
