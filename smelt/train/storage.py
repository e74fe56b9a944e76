"""What each rank writes of a checkpoint: every box of every tensor once, in files laid out in memory first.

A tensor that many ranks hold alike is written by the one of them that has least to write. Nothing is gathered.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smelt.model.tensor_files import PIECES, Spec, dtype_code
from smelt.model.tensor_writer import layout
from smelt.parallel.boxes import Box, boxes

_CHUNK = 2**24  # bytes written at a time, each hashed just before

Tensors = Mapping[str, Mapping[str, Tensor]]  # by the stem of their file, "model" or "optimizer", and their name


class Part(NamedTuple):
    """One box that a rank writes: of which tensor, and what the box is called in its file."""

    name: str
    box: Box
    key: str
    spec: Spec


class Plan(NamedTuple):
    """What this rank writes, by file stem; and the indexes, by file name, that say where every box is (one process
    writes whole tensors and needs none)."""

    parts: Mapping[str, Sequence[Part]]
    indexes: Mapping[str, Any]


def file_name(stem: str, rank: int, ranks: int) -> str:
    """`model.safetensors`, or `model.rank-00003.safetensors` where ranks write files of their own."""
    return f"{stem}.safetensors" if ranks == 1 else f"{stem}.rank-{rank:05}.safetensors"


def make_plan(tensors: Tensors, rank: int, gather: Callable[[Any], list[Any]]) -> Plan:
    """Share the writing of `tensors` out. `gather(value)` gives every rank's value, in the order of ranks.

    Raises RuntimeError for a tensor whose boxes, over all ranks, do not make up the whole of it.
    """
    held = gather({stem: {name: _held(each) for name, each in group.items()} for stem, group in tensors.items()})
    load = [0] * len(held)
    parts: list[dict[str, list[Part]]] = [{stem: [] for stem in tensors} for _ in held]
    for stem in tensors:
        for name, spec, whole in _whole(stem, held):
            for box, holders in whole.items():
                writer = min(holders, key=lambda each: (load[each], each))
                load[writer] += spec.dtype.itemsize * torch.Size(box.shape).numel()
                key = name if box.shape == spec.shape else f"{name}@{','.join(map(str, box.begin))}"
                parts[writer][stem].append(Part(name, box, key, Spec(spec.dtype, box.shape)))
    for each in parts:
        for group in each.values():
            group.sort(key=lambda part: -part.spec.dtype.itemsize)  # widest first keeps every tensor aligned
    indexes = {f"{stem}.{PIECES}": _index(stem, held, parts) for stem in tensors} if len(held) > 1 else {}
    return Plan(parts[rank], indexes)


Held = Mapping[str, Mapping[str, tuple[Spec, list[Box]]]]


def _held(tensor: Tensor) -> tuple[Spec, list[Box]]:
    return Spec(tensor.dtype, tuple(tensor.shape)), [box for box, _ in boxes(tensor)]


def _whole(stem: str, held: Sequence[Held]) -> Iterator[tuple[str, Spec, dict[Box, list[int]]]]:
    """Every tensor by name with its boxes and the ranks that hold each."""
    tensors: dict[str, tuple[Spec, dict[Box, list[int]]]] = {}
    for rank, each in enumerate(held):
        for name, (spec, own) in each[stem].items():
            known, holders = tensors.setdefault(name, (spec, {}))
            if known != spec:
                raise RuntimeError(f"'{name}' is {spec} on rank {rank} and {known} on another")
            for box in own:
                holders.setdefault(box, []).append(rank)
    for name, (spec, holders) in tensors.items():
        there = sum(torch.Size(box.shape).numel() for box in holders)
        if there != torch.Size(spec.shape).numel():
            raise RuntimeError(f"'{name}' is {spec}, but the ranks hold {there} elements of it")
        yield name, spec, holders


def _index(stem: str, held: Sequence[Held], parts: Sequence[Mapping[str, Sequence[Part]]]) -> Any:
    tensors: dict[str, Any] = {
        name: {"dtype": dtype_code(spec.dtype), "shape": spec.shape, "pieces": []}
        for name, spec, _ in _whole(stem, held)
    }
    for rank, each in enumerate(parts):
        _, offsets = layout({part.key: part.spec for part in each[stem]})
        for part in each[stem]:
            place = {"file": file_name(stem, rank, len(parts)), "offset": offsets[part.key]}
            tensors[part.name]["pieces"].append({"begin": part.box.begin, "shape": part.box.shape, **place})
    return {"tensors": tensors}


class StagedFile:
    """A safetensors file in host memory: tensors are copied to their places in it, and it is written in one pass.

    With `pinned` the memory is page-locked, for copies from a CUDA device that nothing waits for.
    """

    def __init__(self, parts: Sequence[Part], pinned: bool) -> None:
        specs = {part.key: part.spec for part in parts}
        self._header, offsets = layout(specs)
        before = len(self._header)
        self._bytes = torch.empty(sum(spec.bytes for spec in specs.values()), dtype=torch.uint8)
        self._pinned = pinned and self._register()
        self.places = {  # box by tensor and beginning: where it goes
            (part.name, part.box): self._bytes[offsets[part.key] - before :][: part.spec.bytes]
            .view(part.spec.dtype)
            .view(part.spec.shape)
            for part in parts
        }

    def _register(self) -> bool:
        """Page-lock the buffer where it is: the pinned allocator would round its size up to a power of two."""
        size = self._bytes.numel()
        return size > 0 and int(torch.cuda.cudart().cudaHostRegister(self._bytes.data_ptr(), size, 0)) == 0

    def close(self) -> None:
        """Unlock the memory."""
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._bytes.data_ptr())
            self._pinned = False

    def write(self, path: Path) -> dict[str, Any]:
        """Write and sync the file; returns its entry in a manifest."""
        digest, content = hashlib.sha256(), self._bytes.numpy().data
        with path.open("wb") as file:
            for chunk in itertools.chain([self._header], _chunks(content)):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return {"bytes": len(self._header) + len(content), "sha256": digest.hexdigest()}


def _chunks(content: Any) -> Iterator[Any]:
    return (content[at : at + _CHUNK] for at in range(0, len(content), _CHUNK))
