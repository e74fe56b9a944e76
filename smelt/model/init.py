"""Initial weights as a function of (seed, parameter name, flat index), so that a rank can draw just its own slice."""

import math

import torch
from torch import Tensor, nn

from smelt.model.decoder import Decoder
from smelt.model.draws import uniform
from smelt.model.fills import Fill
from smelt.recipe.sections.model import Model

_PIECE = 2**22  # elements drawn at a time, to bound memory


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> None:
    """Fill `model` in place as `model.init` says; modules that want otherwise list it in their `fills`."""
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{own}" if path else own
            fill = getattr(module, "fills", {}).get(own) or normal(spread(model.config, module, parameter))
            flat = parameter.view(-1)
            for start in range(0, len(flat), _PIECE):
                count = min(_PIECE, len(flat) - start)
                flat[start : start + count] = draw(name, seed, start, count, fill)


def draw(name: str, seed: int, start: int, count: int, fill: Fill) -> Tensor:
    """Elements `start` to `start + count` of the flattened parameter `name`, float64 `[count]`."""
    return fill(torch.from_numpy(uniform(name, seed, start, count)), torch.arange(start, start + count))


def normal(std: float) -> Fill:
    """The inverse normal distribution function of the uniform at each index: no rejection, no element moves another."""
    return lambda uniforms, index: torch.special.ndtri(uniforms) * std


def spread(config: Model, module: nn.Module, parameter: Tensor) -> float:
    """Standard deviation at which a parameter starts."""
    std = config.init.std
    if config.init.kind == "scaled" and getattr(module, "writes", False):
        return std / math.sqrt(2 * config.layers)
    return std
