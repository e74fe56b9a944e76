"""A feed-forward of one's own: gated by ReLU (Shazeer 2020). A recipe names it `reglu:ReGLU`."""

import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.context import Context
from smelt.model.linear import Linear
from smelt.recipe.parts.custom import Custom
from smelt.recipe.parts.part import Counts, Surroundings
from smelt.recipe.units import Count


class ReGLU(nn.Module):
    """`down(relu(gate(x)) * up(x))`."""

    class Config(Custom):
        width: Count

        def count(self, around: Surroundings) -> Counts:
            return Counts.dense(3 * around.hidden * self.width)

        def flops(self, around: Surroundings, sequence: int) -> int:
            return 2 * self.count(around).total

    def __init__(self, config: Config, around: Surroundings) -> None:
        super().__init__()
        self.gate = Linear(around.hidden, config.width)
        self.up = Linear(around.hidden, config.width)
        self.down = Linear(config.width, around.hidden, writes=True)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, None]:
        """`[batch, seq, hidden]` -> the same, and nothing that joins the loss."""
        return self.down(F.relu(self.gate(x)) * self.up(x)), None
