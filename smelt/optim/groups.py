"""Parameters -> named groups with their own weight decay; a pattern that matches nothing is an error."""

from typing import Any

from torch import nn

from smelt.errors import InputError
from smelt.recipe.sections.train import AdamW


def parameter_groups(model: nn.Module, section: AdamW) -> list[dict[str, Any]]:
    """Two groups for `torch.optim`, "decay" and "no_decay", each with the `names` of its parameters.

    Raises InputError for a `no_decay` word that is part of no parameter's name.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for word in section.no_decay:
        if not any(word in name for name in named):
            raise InputError(
                f"train.optimizer.no_decay: '{word}' is part of no parameter's name; names look like "
                f"{', '.join(list(named)[:3])}"
            )
    excluded = [name for name in named if any(word in name for word in section.no_decay)]
    groups = {
        "decay": ([name for name in named if name not in set(excluded)], section.weight_decay),
        "no_decay": (excluded, 0.0),
    }
    return [
        {"name": group, "names": names, "params": [named[name] for name in names], "weight_decay": decay}
        for group, (names, decay) in groups.items()
        if names
    ]
