"""Which parts of a whole tensor a process holds, however it is cut."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Box(NamedTuple):
    """A box of a whole tensor."""

    begin: tuple[int, ...]
    shape: tuple[int, ...]


def boxes(tensor: Tensor) -> Iterator[tuple[Box, Tensor]]:
    """The boxes of a whole tensor that this rank holds, each with its numbers: views of a DTensor's local part.

    A plain tensor is one box. Boxes are found by sharding the indices of each axis just as the placements shard the
    tensor, which holds for any nesting of them.
    """
    tensor = tensor.detach()
    placements = getattr(tensor, "placements", None)  # told by name: to ask for the type would import DTensor
    if placements is None:
        yield Box((0,) * tensor.ndim, tuple(tensor.shape)), tensor
        return
    mesh, whole = tensor.device_mesh, tensor.shape  # type: ignore[attr-defined]
    coordinate, local = mesh.get_coordinate(), tensor.to_local()  # type: ignore[attr-defined]
    indices = [torch.arange(size) for size in whole]
    for axis, placement in enumerate(placements):
        if placement.is_replicate():
            continue
        along = placement.dim
        column = indices[along].view([-1 if each == along else 1 for each in range(len(whole))])
        shards, _ = placement._split_tensor(column, mesh.size(axis), with_padding=False, contiguous=False)
        indices[along] = shards[coordinate[axis]].reshape(-1)
    if tuple(map(len, indices)) != tuple(local.shape):
        raise RuntimeError(
            f"{placements} of {list(whole)} leave {list(local.shape)} here, not {list(map(len, indices))}"
        )
    for runs in itertools.product(*map(_runs, indices)):
        here = tuple(slice(at, at + length) for at, _, length in runs)
        yield Box(tuple(first for _, first, _ in runs), tuple(length for *_, length in runs)), local[here]


def _runs(index: Tensor) -> list[tuple[int, int, int]]:
    """Stretches of consecutive numbers: where in `index` each begins, its first number, its length."""
    cuts = [0, *((index.diff() != 1).nonzero().flatten() + 1).tolist(), len(index)]
    return [(at, int(index[at]), end - at) for at, end in itertools.pairwise(cuts) if end > at]
