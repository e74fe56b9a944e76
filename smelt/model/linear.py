"""A matrix, kept in float32 and cast to the dtype of the activations where it is used."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.fills import constant


class Linear(nn.Module):
    """`x @ weight.T + bias`, weight `[outputs, inputs]` float32. NaN until it is initialised or loaded.

    `writes` says that the result is added to the residual stream; a module lists such matrices in its own `writes`,
    which scaled initialisation reads.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False, writes: bool = False) -> None:
        super().__init__()
        self.writes = ("weight",) if writes else ()
        self.weight = nn.Parameter(torch.full((outputs, inputs), torch.nan))
        self.bias = nn.Parameter(torch.full((outputs,), torch.nan)) if bias else None
        self.fills = {"bias": constant(0.0)}

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` -> `[..., outputs]`, in the dtype of `x`."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
