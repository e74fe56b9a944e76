"""A mixture of experts, in the place of a feed-forward network."""

import torch
from torch import Tensor, nn

from smelt.model.balance import Balance
from smelt.model.context import Context
from smelt.model.experts import Experts, Shared
from smelt.model.linear import Linear
from smelt.model.router import Router
from smelt.recipe.parts.moe import MixtureOfExperts as Config
from smelt.recipe.parts.part import Surroundings


class MixtureOfExperts(nn.Module):
    """`top_k` of many networks for each token, beside a shared one that every token passes."""

    def __init__(self, config: Config, around: Surroundings) -> None:
        super().__init__()
        self.router = Router(config, around.hidden)
        self.balance = Balance(config)
        self.experts = Experts(config, around.hidden)
        width = config.shared_width
        self.shared = Shared(config.activation, width, around.hidden) if width else None
        self.shared_gate = Linear(around.hidden, 1) if config.shared_gate else None

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """`[batch, seq, hidden]` -> the same; in training also what balancing adds to each token's loss."""
        routing = self.router(x.flatten(0, 1), self.balance.bias)
        out = self.experts(x.flatten(0, 1), routing.chosen, routing.weights, routing.counts).view_as(x)
        extra = self.balance(routing, context) if self.training else None
        if self.shared is not None:
            shared = self.shared(x)
            out = out + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * shared)
        return out, None if extra is None else extra.view(x.shape[:2])
