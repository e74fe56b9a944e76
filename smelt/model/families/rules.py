"""How the tensors of a family's files correspond to our parameters. A family's table is a list of these rules.

Patterns hold `{}` for the layer. A rule takes part where our parameters exist; every rule is exact both ways, bit for
bit, and made of operations that also run on meta tensors, from which the shapes of what will be written are known.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from smelt.model.tensor_files import Spec
from smelt.recipe.sections.model import Layer, Model

Convert = Callable[[list[Tensor], Layer], list[Tensor]]


@dataclass(frozen=True)
class Rule:
    """`theirs` are one or more stored tensors, `ours` one or more parameters; `load` and `save` turn lists of one into
    lists of the other.

    `mixer` is the kind of attention of the layers it is for, where names alone do not tell; None: any.

    A rule whose stored names hold `{e}` works on one expert at a time: ours are entries along the first axis of the
    parameters, and `NAME[{e}]` is an entry along the first axis of a stored stack of experts.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    load: Convert
    save: Convert
    mixer: str | None = None


def same(ours: str, theirs: str) -> Rule:
    """One tensor, one parameter, the same numbers."""
    return Rule((ours,), (theirs,), _unchanged, _unchanged)


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


def for_mixer(kind: str, rules: Iterable[Rule]) -> list[Rule]:
    """The same rules for layers whose attention is of this kind."""
    return [replace(rule, mixer=kind) for rule in rules]


def _unchanged(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
    return tensors


class Place(NamedTuple):
    """A tensor, or its entry `entry` along the first axis."""

    name: str
    entry: int | None = None


@dataclass(frozen=True)
class Use:
    """A rule at work on one layer, or on one of its experts."""

    rule: Rule
    layer: Layer
    ours: tuple[Place, ...]
    theirs: tuple[Place, ...]

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Our parameters from the stored tensors."""
        return self.rule.load(tensors, self.layer)

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """The stored tensors from our parameters."""
        return self.rule.save(tensors, self.layer)


def uses(rules: Sequence[Rule], config: Model, parameters: Mapping[str, Spec]) -> list[Use]:
    """Every rule wherever its parameters exist, layer by layer; ValueError names a parameter that no rule covers."""
    found = [
        use
        for index in (None, *range(config.layers))
        for rule in rules
        if ("{}" in rule.ours[0]) == (index is not None)
        for use in _at(rule, config.each_layer[index or 0], index, parameters)
    ]
    covered = {place.name for use in found for place in use.ours}
    for name in parameters:
        if name not in covered:
            raise ValueError(f"it has no place for '{name}'")
    return found


def _at(rule: Rule, layer: Layer, index: int | None, parameters: Mapping[str, Spec]) -> Iterator[Use]:
    ours = [pattern.format(index) for pattern in rule.ours]
    if any(name not in parameters for name in ours) or rule.mixer not in (None, layer.attention.kind):
        return
    if not any("{e}" in pattern for pattern in rule.theirs):
        theirs = tuple(Place(pattern.format(index)) for pattern in rule.theirs)
        yield Use(rule, layer, tuple(map(Place, ours)), theirs)
        return
    for expert in range(parameters[ours[0]].shape[0]):
        theirs = tuple(
            Place(pattern.removesuffix("[{e}]").format(index, e=expert), expert if pattern.endswith("[{e}]") else None)
            for pattern in rule.theirs
        )
        yield Use(rule, layer, tuple(Place(name, expert) for name in ours), theirs)


def their_specs(found: Sequence[Use], ours: Mapping[str, Spec]) -> dict[str, Spec]:
    """Dtype and shape of every stored tensor, in order, given those of our parameters."""
    return _after(found, ours, lambda use: (use.save, use.ours, use.theirs))


def our_specs(found: Sequence[Use], theirs: Mapping[str, Spec]) -> dict[str, Spec]:
    """Dtype and shape of every parameter, in order, given those of the stored tensors."""
    return _after(found, theirs, lambda use: (use.load, use.theirs, use.ours))


def _after(
    found: Sequence[Use],
    before: Mapping[str, Spec],
    way: Callable[[Use], tuple[Callable[[list[Tensor]], list[Tensor]], tuple[Place, ...], tuple[Place, ...]]],
) -> dict[str, Spec]:
    specs: dict[str, Spec] = {}
    for use in found:
        convert, sources, targets = way(use)
        tensors = []
        for name, entry in sources:
            spec = before[name] if entry is None else before[name].entry()
            tensors.append(torch.empty(spec.shape, dtype=spec.dtype, device="meta"))
        for (name, entry), tensor in zip(targets, convert(tensors), strict=True):
            shape = tuple(tensor.shape)
            if entry is not None:
                shape = (entry + 1, *shape)  # the last expert makes it whole
            specs[name] = Spec(tensor.dtype, shape)
    return specs
