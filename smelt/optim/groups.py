"""Parameters -> named groups that learn and decay in their own way; a pattern that matches nothing is an error."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from smelt.errors import InputError
from smelt.recipe.sections.optimizer import NOT_MATRICES, Muon, Optimizer


class _Place(NamedTuple):
    """What tells a group from another; groups stand in this order."""

    pattern: int  # -1: none
    plain: bool  # not a matrix of Muon's
    slower: float  # minus the factor on the learning rate
    bare: bool  # does not decay


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    section: Optimizer,
    factors: Mapping[str, float],
    names: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Groups for `torch.optim`, each with the `names` of its parameters and its `lr_factor`; `matrix` where Muon is to
    orthogonalise them. Every parameter is in exactly one.

    `factors` are what muP multiplies learning rates by, by name: decay is divided by it, as AdamW multiplies decay by
    the learning rate. `names` are all of the model's, where `named` holds only some. Raises InputError for a pattern
    or word that matches none of them.
    """
    mine = {name: parameter for name, parameter in named if parameter.requires_grad}
    _check_patterns(section, list(mine) if names is None else list(names))
    groups: dict[_Place, dict[str, Any]] = {}
    for name, parameter in mine.items():
        place, group = _group(name, parameter, section, factors.get(name, 1.0))
        group = groups.setdefault(place, group)
        group["names"].append(name)
        group["params"].append(parameter)
    assert sum(len(group["params"]) for group in groups.values()) == len({id(each) for each in mine.values()})
    return [groups[place] for place in sorted(groups)]


def _group(name: str, parameter: nn.Parameter, section: Optimizer, width: float) -> tuple[_Place, dict[str, Any]]:
    """Where a parameter belongs, and that group, still empty."""
    pattern = next((i for i, each in enumerate(section.groups) if re.search(each.match, name)), -1)
    own = section.groups[pattern] if pattern >= 0 else None
    matrix = isinstance(section, Muon) and _is_matrix(name, parameter, section.adamw)
    if matrix and isinstance(
        section, Muon
    ):  # the spectral norm of a step is the learning rate, or sqrt(width) times it
        width = width**0.5 if section.adjust_lr == "match_rms_adamw" else 1.0
    decay = 0.0 if any(word in name for word in section.no_decay) else section.weight_decay
    if own is not None and own.weight_decay is not None:
        decay = own.weight_decay
    factor = width * (own.lr_factor if own else 1.0)
    place = _Place(pattern, not matrix, -factor, decay == 0)
    words = [own.match] if own else []
    words += ["matrices"] if matrix else []
    words += ["decay" if decay else "no_decay"]
    return place, {
        "name": " ".join(words) + ("" if factor == 1 else f" x {factor:g}"),
        "names": [],
        "params": [],
        "matrix": matrix,
        "lr": section.lr * factor,
        "lr_factor": factor,
        "weight_decay": decay / width,
    }


def _is_matrix(name: str, parameter: nn.Parameter, excluded: Collection[str]) -> bool:
    """Whether it maps one space to another: of two axes, or three where there is a matrix for each expert."""
    if name.endswith("bias") or any(word in name for word in excluded):
        return False
    matrices = parameter.ndim == 2 or (parameter.ndim == 3 and ".experts." in name)
    return matrices and min(parameter.shape[-2:]) > 1


def _check_patterns(section: Optimizer, names: list[str]) -> None:
    like = f"names look like {', '.join(names[:3])}"
    words = [("no_decay", word) for word in section.no_decay]
    if isinstance(section, Muon):
        words += [("adamw", word) for word in section.adamw if word not in NOT_MATRICES]
    for field, word in words:
        if not any(word in name for name in names):
            raise InputError(f"train.optimizer.{field}: '{word}' is part of no parameter's name; {like}")
    for index, group in enumerate(section.groups):
        if not any(re.search(group.match, name) for name in names):
            raise InputError(
                f"train.optimizer.groups.{index}.match: '{group.match}' matches no parameter's name; {like}"
            )
