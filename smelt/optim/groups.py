"""Parameters -> named groups with their own weight decay; a pattern that matches nothing is an error."""

from typing import Any

from torch import nn

from smelt.errors import InputError
from smelt.model.init import learning_rate_factors
from smelt.recipe.sections.train import AdamW


def parameter_groups(model: nn.Module, section: AdamW) -> list[dict[str, Any]]:
    """Groups for `torch.optim`, "decay" and "no_decay", each with the `names` of its parameters.

    Under muP the matrices of each are a group of their own, whose `lr_factor` multiplies the learning rate; their
    weight decay is divided by it, as AdamW multiplies decay by the learning rate. Raises InputError for a `no_decay`
    word that is part of no parameter's name.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for word in section.no_decay:
        if not any(word in name for name in named):
            raise InputError(
                f"train.optimizer.no_decay: '{word}' is part of no parameter's name; names look like "
                f"{', '.join(list(named)[:3])}"
            )
    factors = learning_rate_factors(model)
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for factor in sorted({1.0, *factors.values()}, reverse=True):
        for decays in (True, False):
            name = ("decay" if decays else "no_decay") + ("" if factor == 1 else f" x {factor:g}")
            decay = section.weight_decay / factor if decays else 0.0
            groups[decays, factor] = {
                "name": name,
                "names": [],
                "params": [],
                "weight_decay": decay,
                "lr_factor": factor,
            }
    for name, parameter in named.items():
        group = groups[not any(word in name for word in section.no_decay), factors.get(name, 1.0)]
        group["names"].append(name)
        group["params"].append(parameter)
    return [group for group in groups.values() if group["names"]]
