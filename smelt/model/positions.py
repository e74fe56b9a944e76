"""Where a token stands: positions that restart with each document, and their rotary embedding (Su et al. 2021)."""

import torch
from torch import Tensor

from smelt.recipe.parts.position import Rope

Rotation = tuple[Tensor, Tensor]


def positions(starts: Tensor | None, first: int, sequence: int, device: torch.device) -> Tensor:
    """Position of each token in its document, `[batch or 1, seq]`; the row's first new token has index `first`."""
    index = torch.arange(first, first + sequence, device=device)
    return index[None] if starts is None else index - starts


def rotation(position: Tensor, part: Rope, channels: int) -> Rotation:
    """Cosines and signed sines, each float32 `[batch, seq, 1, channels]`; pair i turns by position / theta^(2i / d)."""
    exponents = torch.arange(0, channels, 2, device=position.device, dtype=torch.float32) / channels
    angles = position[..., None, None].float() * (1.0 / part.theta**exponents)  # [batch, seq, 1, channels / 2]
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (channel i, channel i + head_dim / 2) of `x` `[batch, seq, heads, head_dim]` by its angle."""
    cosines, sines = rotation
    return (x * cosines + x.roll(x.shape[-1] // 2, -1) * sines).to(x.dtype)

