"""A matrix without bias, kept in float32 and cast to the dtype of the activations where it is used."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """`x @ weight.T`, weight `[outputs, inputs]` float32. NaN until it is initialised or loaded."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((outputs, inputs), torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` -> `[..., outputs]`, in the dtype of `x`."""
        return F.linear(x, self.weight.to(x.dtype))
