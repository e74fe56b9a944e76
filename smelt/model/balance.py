"""How experts are kept evenly busy: auxiliary losses within the step, a bias on the choice after it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smelt.model.context import Context
from smelt.model.fills import constant
from smelt.model.router import Routing
from smelt.recipe.parts.moe import BalanceBias, BalanceLoss
from smelt.recipe.parts.moe import MixtureOfExperts as Config


class Balance(nn.Module):
    """Counts what the experts of one layer do in a step, makes the auxiliary losses, and holds the correcting bias.

    `sum_over_ranks` gives the sum of a tensor over the ranks that share a batch, `sum_over_parts` over those that share
    its rows; whoever splits batches or rows sets them.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.top_k, self.method, self.z_loss = config.top_k, config.balance, config.z_loss
        self.weight = config.balance.weight if isinstance(config.balance, BalanceLoss) else 0.0
        self.sum_over_ranks: Callable[[Tensor], Tensor] = torch.clone
        self.sum_over_parts: Callable[[Tensor], Tensor] = torch.clone
        biased = isinstance(config.balance, BalanceBias)
        self.bias = nn.Parameter(torch.full((config.experts,), torch.nan), requires_grad=False) if biased else None
        self.fills = {"bias": constant(0.0)}
        # Made on the CPU even where a decoder is built on the meta device to be loaded: a load brings no counters.
        self.register_buffer("counts", torch.zeros(config.experts, dtype=torch.int64, device="cpu"), persistent=False)
        self.register_buffer("probabilities", torch.zeros(config.experts, device="cpu"), persistent=False)
        self.register_buffer("squares", torch.zeros((), device="cpu"), persistent=False)

    def forward(self, routing: Routing, context: Context) -> Tensor | None:
        """The auxiliary loss of each token, float32 `[tokens]`, or None.

        A layer that is computed again in the backward pass, to spare memory, meets the same context and counts once.
        """
        probabilities = routing.probabilities() if self.weight else None
        squares = routing.logits.logsumexp(1).square() if self.z_loss else None
        counts = context.once_by(self, lambda: self._count(routing.counts, probabilities, squares))
        extra = None
        if probabilities is not None:
            extra = self.weight * imbalance(probabilities, counts)
        if squares is not None:
            extra = self.z_loss * squares if extra is None else extra + self.z_loss * squares
        return extra

    @torch.no_grad()
    def _count(self, counts: Tensor, probabilities: Tensor | None, squares: Tensor | None) -> Tensor:
        """Adds a micro-batch to the counters; returns the counts that its balancing loss goes by."""
        self.counts += counts
        if probabilities is not None:
            self.probabilities += probabilities.sum(0)
        if squares is not None:
            self.squares += squares.sum()
        local = isinstance(self.method, BalanceLoss) and self.method.scope == "local"
        return self.sum_over_parts(counts) if local else self.sum_over_ranks(self.counts)

    @torch.no_grad()
    def settle(self) -> "LayerUse":
        """What was counted since the last call; corrects the bias by it, and starts counting afresh."""
        counts, probabilities, squares = map(self.sum_over_ranks, (self.counts, self.probabilities, self.squares))
        for counter in (self.counts, self.probabilities, self.squares):
            counter.zero_()
        choices = counts.sum()
        if isinstance(self.method, BalanceBias) and self.bias is not None:
            self.bias -= self.method.rate * (counts * len(counts) - choices).sign()
        tokens = choices / self.top_k
        return LayerUse(
            counts * len(counts) / choices,
            self.weight * imbalance(probabilities / tokens, counts) if self.weight else None,
            self.z_loss * squares / tokens if self.z_loss else None,
        )


def imbalance(probabilities: Tensor, counts: Tensor) -> Tensor:
    """sum_i f_i p_i, `[..., experts]` -> `[...]`, whose mean over tokens is sum_i f_i P_i.

    f_i is expert i's share of the choices `counts`, P_i its mean probability (Fedus et al. 2021, without their factor,
    the number of experts): 1 / experts when both are even, 1 when one expert has all. Only P carries a gradient.
    """
    return probabilities @ (counts.to(probabilities.dtype) / counts.sum())


class LayerUse(NamedTuple):
    """One layer in one step: each expert's `load`, float32 `[experts]`, 1 being an even share of the choices; the
    balancing and the router z-loss, means over tokens, None where the layer has none."""

    load: Tensor
    balance_loss: Tensor | None
    router_z_loss: Tensor | None


def after_step(model: nn.Module) -> list[LayerUse]:
    """To call after each optimizer step: how each layer used its experts. Corrects their biases."""
    return [module.settle() for module in model.modules() if isinstance(module, Balance)]


def metrics(layers: Sequence[LayerUse]) -> dict[str, Any]:
    """A step's experts for `metrics.jsonl`, empty for a model that has none.

    `expert_load` lists each layer's loads, 1 being an even share; `expert_load_max` and `expert_load_min` are the
    heaviest and the lightest of them. `balance_loss` and `router_z_loss` are what joined the loss, over all layers.
    """
    if not layers:
        return {}
    loads = [[round(load, 3) for load in layer.load.tolist()] for layer in layers]
    row: dict[str, Any] = {"expert_load_max": max(map(max, loads)), "expert_load_min": min(map(min, loads))}
    for name in ("balance_loss", "router_z_loss"):
        losses = [loss for layer in layers if (loss := getattr(layer, name)) is not None]
        if losses:
            row[name] = torch.stack(losses).sum().item()
    return {**row, "expert_load": loads}
