"""Weights of a decoder that is spread over processes: its start, drawn shard by shard, or copied from whole tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from smelt.model.decoder import Decoder
from smelt.model.init import fill_box, fillings


def box(tensor: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """Where this process's part of a parameter begins in the whole, and that part, as a view."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    if not isinstance(tensor, DTensor):
        return (0,) * tensor.ndim, tensor.detach()
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(offset), tensor._local_tensor.detach()


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
        offset, part = box(parameter)
        fill_box(part, offset, parameter.shape, name, seed, fill)


@torch.no_grad()
def copy_parts(parameters: dict[str, nn.Parameter], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Overwrite parameters with this process's part of whole tensors of the same names."""
    for name, tensor in tensors:
        offset, part = box(parameters[name])
        part.copy_(tensor[tuple(slice(low, low + size) for low, size in zip(offset, part.shape, strict=True))])
