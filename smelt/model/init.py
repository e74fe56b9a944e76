"""Initial weights as a function of (seed, parameter name, flat index), so that a rank can draw just its own slice."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from smelt.model.decoder import Decoder
from smelt.model.draws import uniform
from smelt.model.fills import Fill

_PIECE = 2**22  # elements drawn at a time, to bound memory
_CUT = 3  # standard deviations that a truncated draw keeps


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> None:
    """Fill `model` in place as `model.init` says; modules that want otherwise list it in their `fills`."""
    for name, parameter, fill in fillings(model):
        fill_box(parameter, (0,) * parameter.ndim, parameter.shape, name, seed, fill)


@torch.no_grad()
def fill_box(part: Tensor, offset: Sequence[int], shape: Sequence[int], name: str, seed: int, fill: Fill) -> None:
    """Fill `part`, which stands at `offset` in the parameter `name` of this `shape`, with its initial values.

    Whole entries of the first axis are drawn, and what lies outside `part` thrown away.
    """
    if not part.numel():
        return
    first, *inner = offset or (0,)
    row, part = math.prod(shape[1:]), part.view(part.shape or (1,))
    if part.shape[1:].numel() == row:  # nothing thrown away, so pieces may end anywhere
        flat = part.view(-1)
        for start in range(0, len(flat), _PIECE):
            count = min(_PIECE, len(flat) - start)
            flat[start : start + count] = draw(name, seed, first * row + start, count, fill)
        return
    box = tuple(slice(low, low + size) for low, size in zip(inner, part.shape[1:], strict=True))
    rows = max(1, _PIECE // row)
    for start in range(0, len(part), rows):
        piece = part[start : start + rows]
        drawn = draw(name, seed, (first + start) * row, len(piece) * row, fill)
        piece.copy_(drawn.view(len(piece), *shape[1:])[:, *box])


def draw(name: str, seed: int, start: int, count: int, fill: Fill) -> Tensor:
    """Elements `start` to `start + count` of the flattened parameter `name`, float64 `[count]`."""
    return fill(torch.from_numpy(uniform(name, seed, start, count)), torch.arange(start, start + count))


def fillings(model: Decoder) -> Iterator[tuple[str, nn.Parameter, Fill]]:
    """Every parameter of `model` with its name and what fills it."""
    own_draw = truncated if model.config.init.kind == "truncated" else normal
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            fill = getattr(module, "fills", {}).get(own) or own_draw(_spread(model, module, own))
            yield f"{path}.{own}" if path else own, parameter, fill


def learning_rate_factors(model: nn.Module) -> dict[str, float]:
    """What the learning rate of a parameter is multiplied by, by name, where it is not 1: matrices under muP."""
    factor = model.config.init.widening(model.config.hidden) if isinstance(model, Decoder) else 1.0
    if factor == 1:
        return {}
    return {
        f"{path}.{own}": factor
        for path, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False)
        if _widens(model, module, own)
    }


def normal(std: float) -> Fill:
    """The inverse normal distribution function of the uniform at each index: no rejection, no element moves another."""
    return lambda uniforms, index: torch.special.ndtri(uniforms) * std


def truncated(std: float) -> Fill:
    """`normal`, of the uniforms between those of minus and plus three standard deviations."""
    tail = 0.5 * math.erfc(_CUT / math.sqrt(2))
    return lambda uniforms, index: torch.special.ndtri(tail + (1 - 2 * tail) * uniforms) * std


def _spread(model: Decoder, module: nn.Module, own: str) -> float:
    """Standard deviation at which the parameter `own` of `module` starts."""
    init = model.config.init
    if init.kind == "scaled" and own in getattr(module, "writes", ()):
        return init.std / math.sqrt(2 * model.config.layers)
    return init.std * math.sqrt(init.widening(model.config.hidden)) if _widens(model, module, own) else init.std


def _widens(model: Decoder, module: nn.Module, own: str) -> bool:
    """Whether a parameter is made of matrices that grow with the width of the model on both sides."""
    one_sided = isinstance(module, nn.Embedding) or module is model.head
    return module._parameters[own].ndim >= 2 and not one_sided and own not in getattr(module, "fills", {})
