"""How the tensors of a family's files correspond to our parameters. A family's table is a list of these rules.

Patterns hold `{}` for the layer and `{e}` for the expert. A rule takes part where our parameters exist; every rule is
exact both ways, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smelt.recipe.sections.model import Layer

Convert = Callable[[list[Tensor], Layer], list[Tensor]]


@dataclass(frozen=True)
class Rule:
    """`theirs` are one or more stored tensors, `ours` one or more parameters; `load` and `save` turn lists of one into
    lists of the other. `{e}` in `theirs` stands for as many tensors as there are experts, in order."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    load: Convert
    save: Convert


def same(ours: str, theirs: str) -> Rule:
    """One tensor, one parameter, the same numbers."""
    return Rule((ours,), (theirs,), _unchanged, _unchanged)


def stack(ours: str, theirs: str) -> Rule:
    """`theirs` has an `{e}`: one tensor an expert, ours all of them along a new first axis."""

    def load(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [torch.stack(tensors)]

    def save(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return list(tensors[0].unbind(0))

    return Rule((ours,), (theirs,), load, save)


def joined(ours: Sequence[str], theirs: str, sizes: Callable[[Layer], Sequence[int]], dim: int = 0) -> Rule:
    """One stored tensor is our parameters one after the other along `dim`; `sizes` gives their lengths in it."""

    def load(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [part.contiguous() for part in tensors[0].split(list(sizes(layer)), dim)]

    def save(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [torch.cat(tensors, dim)]

    return Rule(tuple(ours), (theirs,), load, save)


def via(
    ours: str, theirs: str, load: Callable[[Tensor, Layer], Tensor], save: Callable[[Tensor, Layer], Tensor]
) -> Rule:
    """One tensor, one parameter, their entries in another order or shape."""
    return Rule(
        (ours,),
        (theirs,),
        lambda tensors, layer: [load(tensors[0], layer).contiguous()],
        lambda tensors, layer: [save(tensors[0], layer).contiguous()],
    )


def _unchanged(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
    return tensors
