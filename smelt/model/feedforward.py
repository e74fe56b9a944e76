"""Feed-forward networks that every token passes whole."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.context import Context
from smelt.model.linear import Linear
from smelt.recipe.parts import dense
from smelt.recipe.parts.part import Surroundings


class _Gated(nn.Module):
    """`down(act(gate(x)) * up(x))`."""

    act: Callable[[Tensor], Tensor]

    def __init__(self, config: dense.SwiGLU | dense.GeGLU, around: Surroundings) -> None:
        super().__init__()
        self.gate_scale, self.output_scale = config.gate_scale, config.output_scale
        self.gate = Linear(around.hidden, config.width, config.bias)
        self.up = Linear(around.hidden, config.width, config.bias)
        self.down = Linear(config.width, around.hidden, config.bias, writes=True)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, None]:
        """`[batch, seq, hidden]` -> the same."""
        gate = self.gate(x)
        out = self.down(self.act(gate if self.gate_scale == 1 else gate * self.gate_scale) * self.up(x))
        return out if self.output_scale == 1 else out * self.output_scale, None


class SwiGLU(_Gated):
    """Gated by SiLU (Shazeer 2020)."""

    act = staticmethod(F.silu)


class GeGLU(_Gated):
    """Gated by GELU in its tanh form (Shazeer 2020)."""

    act = staticmethod(partial(F.gelu, approximate="tanh"))


class ReLU2(nn.Module):
    """`down(relu(up(x)) ** 2)` (So et al. 2021)."""

    def __init__(self, config: dense.ReLU2, around: Surroundings) -> None:
        super().__init__()
        self.up = Linear(around.hidden, config.width, config.bias)
        self.down = Linear(config.width, around.hidden, config.bias, writes=True)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, None]:
        """`[batch, seq, hidden]` -> the same."""
        return self.down(F.relu(self.up(x)).square()), None
