"""Where a token stands: positions that restart with each document, and their rotary embedding (Su et al. 2021)."""

import torch
from torch import Tensor

from smelt.recipe.sections.model import NoPosition, Rope

Rotation = tuple[Tensor, Tensor]


def positions(starts: Tensor | None, first: int, sequence: int, device: torch.device) -> Tensor:
    """Position of each token in its document, `[batch or 1, seq]`; the row's first new token has index `first`."""
    index = torch.arange(first, first + sequence, device=device)
    return index[None] if starts is None else index - starts


def rotation(position: Tensor, theta: float, head_dim: int) -> Rotation:
    """Cosines and signed sines, each float32 `[batch, seq, 1, head_dim]`; pair i turns by position / theta^(2i / d)."""
    exponents = torch.arange(0, head_dim, 2, device=position.device, dtype=torch.float32) / head_dim
    angles = position[..., None, None].float() * (1.0 / theta**exponents)  # [batch, seq, 1, head_dim / 2]
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (channel i, channel i + head_dim / 2) of `x` `[batch, seq, heads, head_dim]` by its angle."""
    cosines, sines = rotation
    return (x * cosines + x.roll(x.shape[-1] // 2, -1) * sines).to(x.dtype)


class Rotations:
    """The rotations of one batch: each distinct (theta, head_dim) is computed once, not once a layer."""

    def __init__(self, position: Tensor) -> None:
        self._position = position
        self._known: dict[tuple[float, int], Rotation] = {}

    def of(self, part: Rope | NoPosition, head_dim: int) -> Rotation | None:
        """The rotation that a layer's position section asks for; None for a layer without."""
        if isinstance(part, NoPosition):
            return None
        key = (part.theta, head_dim)
        if key not in self._known:
            self._known[key] = rotation(self._position, *key)
        return self._known[key]
