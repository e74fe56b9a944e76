"""The feed-forward half of a layer: SwiGLU (Shazeer 2020)."""

import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.linear import Linear


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))`, `width` channels wide."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate = Linear(hidden, width)
        self.up = Linear(hidden, width)
        self.down = Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, seq, hidden]` -> the same."""
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out
