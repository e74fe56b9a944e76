"""The recipe's optimizer, built on named parameter groups, and its state by parameter name."""

from typing import Any

import torch
from torch import Tensor, nn

from smelt.optim.groups import parameter_groups
from smelt.recipe.sections.train import AdamW


def build_optimizer(model: nn.Module, section: AdamW) -> torch.optim.Optimizer:
    """AdamW with decoupled decay; its state is float32, like the parameters."""
    return torch.optim.AdamW(
        parameter_groups(model, section), lr=section.lr, betas=section.betas, eps=section.eps, fused=True
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `{"exp_avg.layers.0.attention.q.weight": tensor}`, for saving."""
    return {
        f"{key}.{name}": value.detach().cpu()
        for name, parameter in _named(optimizer)
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` gave, each tensor on its parameter's device; `step` stays where it was."""
    state: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        state.setdefault(name, {})[kind] = value
    for name, parameter in _named(optimizer):
        optimizer.state[parameter] = {
            kind: value.to(parameter.device).clone() for kind, value in state.get(name, {}).items()
        }


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    return [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]
