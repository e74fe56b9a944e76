"""Initial weights as a function of (seed, parameter name, flat index), so that a rank can draw just its own slice."""

import torch
from torch import Tensor

from smelt.model.decoder import Decoder
from smelt.model.draws import uniform

_PIECE = 2**22  # elements drawn at a time, to bound memory


def draw(name: str, seed: int, start: int, count: int) -> Tensor:
    """Elements `start` to `start + count` of the flattened parameter `name` as standard normals, float64 `[count]`.

    The inverse normal distribution function of the uniform at that index: no rejection, so no element moves another.
    """
    return torch.special.ndtri(torch.from_numpy(uniform(name, seed, start, count)))


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> None:
    """Fill `model` in place: matrices normal(0, `init_std`), norm weights 1."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1)
            continue
        flat = parameter.view(-1)
        for start in range(0, len(flat), _PIECE):
            count = min(_PIECE, len(flat) - start)
            flat[start : start + count] = draw(name, seed, start, count) * model.config.init_std
