"""Where a token stands: positions that restart with each document, and their rotary embedding (Su et al. 2021)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smelt.recipe.parts.position import LinearScaling, Llama3Scaling, Rope, Yarn

Rotation = tuple[Tensor, Tensor]
TILE = 2**18  # numbers turned at once on a CPU, so that float32 copies stay in its cache


class Rotary:
    """Rotary embedding of the first `channels` channels of a head.

    Layers that turn alike have the same `name`: torch.compile can look a string up, but not a recipe's part.
    """

    def __init__(self, part: Rope, channels: int) -> None:
        self.part, self.channels = part, channels
        self.name = f"{part!r} on {channels}"


def positions(starts: Tensor | None, first: int, sequence: int, device: torch.device) -> Tensor:
    """Position of each token in its document, `[batch or 1, seq]`; the row's first new token has index `first`."""
    index = torch.arange(first, first + sequence, device=device)
    return index[None] if starts is None else index - starts


def rotation(position: Tensor, part: Rope, channels: int) -> Rotation:
    """Cosines and signed sines of `position` `[batch, seq]` times the frequencies, float32 `[batch, seq, 1, channels]`.

    Both are multiplied by YaRN's temperature, which so reaches every product of a query and a key twice.
    """
    heat = part.scaling.heat if isinstance(part.scaling, Yarn) else 1.0
    return _table(position, frequencies(part, channels, position.device), heat)


@torch.library.custom_op("smelt::rotation", mutates_args=())
def _table(position: Tensor, frequencies: Tensor, heat: float) -> tuple[Tensor, Tensor]:
    """An operator, since a compiler would take cosines anew for every layer and head."""
    angles = position[..., None, None].float() * frequencies
    cosines, sines = angles.cos().mul_(heat), angles.sin().mul_(heat)
    return torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)


@_table.register_fake
def _(position: Tensor, frequencies: Tensor, heat: float) -> tuple[Tensor, Tensor]:
    shape = (*position.shape, 1, 2 * len(frequencies))
    return frequencies.new_empty(shape), frequencies.new_empty(shape)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (i, i + channels / 2) of the first `channels` channels of `x` `[batch, seq, heads, head_dim]`."""
    cosines, sines = rotation
    channels = cosines.shape[-1]
    turning = x[..., :channels]
    turned: Tensor = (
        _turn_whole(turning, cosines, sines) if torch.compiler.is_compiling() else _Turn.apply(turning, *rotation)
    )
    return turned if channels == x.shape[-1] else torch.cat((turned, x[..., channels:]), -1)


def _turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return _turn_whole(x, cosines, sines)
    tokens, half = max(1, TILE // max(1, x[:, :1].numel())), x.shape[-1] // 2
    out = x.new_empty(x.shape)
    parts = (each.split(tokens, 1) for each in (x, cosines, sines, out))
    dtype = torch.promote_types(x.dtype, cosines.dtype)
    room = x.new_empty(2, len(x), min(tokens, x.shape[1]), *x.shape[2:], dtype=dtype)
    for part, cosine, sine, place in zip(*parts, strict=True):
        wide, turned = room[:, :, : part.shape[1]]
        torch.mul(wide.copy_(part), cosine, out=turned)
        turned[..., :half].addcmul_(wide[..., half:], sine[..., :half])
        turned[..., half:].addcmul_(wide[..., :half], sine[..., half:])
        place.copy_(turned)
    return out


def _turn_whole(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """By halves, which a compiler takes in one pass."""
    half = x.shape[-1] // 2
    wide = x.to(torch.promote_types(x.dtype, cosines.dtype))
    low, high = wide[..., :half], wide[..., half:]
    cosines, sines = cosines[..., half:], sines[..., half:]
    return torch.cat((low * cosines - high * sines, high * cosines + low * sines), -1).to(x.dtype)


class _Turn(torch.autograd.Function):
    """The turn, whose backward is the turn back; on a CPU by tiles: fresh memory costs more than the arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turn(x, cosines, sines)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turn(grad, cosines, -sines), None, None


def frequencies(part: Rope, channels: int, device: torch.device) -> Tensor:
    """Radians a position by which each pair turns, float32 `[channels / 2]`: theta^(-2i / channels), scaled."""
    exponents = torch.arange(0, channels, 2, device=device, dtype=torch.float32) / channels
    plain = 1.0 / part.theta**exponents
    scaling = part.scaling
    if isinstance(scaling, LinearScaling):
        return plain / scaling.factor
    if isinstance(scaling, Llama3Scaling):
        return _llama3(plain, scaling)
    if isinstance(scaling, Yarn):
        return _yarn(plain, scaling, part.theta, channels)
    return plain  # dual chunk attention moves positions, not frequencies


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Divided below `low_frequency` turns in `original` tokens, kept above `high_frequency`, mixed between."""
    turns = scaling.original * plain / (2 * math.pi)
    kept = ((turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)).clamp(0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain


def _yarn(plain: Tensor, scaling: Yarn, theta: float, channels: int) -> Tensor:
    """Peng et al. 2023, section 3.2: a ramp from pairs that turn `beta_fast` times to those that turn `beta_slow`."""

    def pair(turns: float) -> float:
        return channels * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, channels - 1)
    index = torch.arange(channels // 2, device=plain.device, dtype=torch.float32)
    divided = ((index - first) / (last - first or 1e-3)).clamp(0, 1)
    return plain / scaling.factor * divided + plain * (1 - divided)
