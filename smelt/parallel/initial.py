"""Weights of a decoder that is spread over processes: its start, drawn shard by shard, or copied from whole tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from smelt.model.decoder import Decoder
from smelt.model.init import fill_box, fillings
from smelt.parallel.boxes import boxes


def materialise(module: nn.Module, device: torch.device) -> None:
    """Give parameters that were made on the meta device memory on `device`, for this process's part alone; move
    buffers there, which hold counters and were never meta."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.to_empty(device=device)
    for name, buffer in module.named_buffers():
        buffer.copy_(buffers[name])


@torch.no_grad()
def initialise_parts(model: Decoder, seed: int) -> None:
    """`model.init.initialise` for parameters that are cut: the same values as in a model that is whole."""
    for name, parameter, fill in fillings(model):
        for (begin, _), part in boxes(parameter):
            fill_box(part, begin, parameter.shape, name, seed, fill)


@torch.no_grad()
def copy_parts(parameters: dict[str, nn.Parameter], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Overwrite parameters with this process's part of whole tensors of the same names."""
    for name, tensor in tensors:
        for (begin, shape), part in boxes(parameters[name]):
            part.copy_(tensor[tuple(slice(low, low + size) for low, size in zip(begin, shape, strict=True))])
