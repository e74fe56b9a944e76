"""Writing safetensors files, whole or in shards, one tensor at a time, for models larger than memory."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from torch import Tensor

from smelt.files import disk_errors, write_json
from smelt.model.tensor_files import INDEX, WEIGHTS, Spec, bytes_of, dtype_code, dtype_name

SHARD_BYTES = 5 * 10**9


class _At(NamedTuple):
    path: Path
    offset: int


class TensorWriter:
    """Writes tensors of known dtypes and shapes in any order, each whole or entry by entry along the first axis.

    A context manager: on leaving, the index is written if there are several files, each of at most `limit` bytes
    (None: one file).
    """

    def __init__(self, folder: Path, specs: Mapping[str, Spec], limit: int | None = SHARD_BYTES) -> None:
        self.specs, self._folder = dict(specs), folder
        self._places: dict[str, _At] = {}
        self._missing = {name: spec.bytes for name, spec in specs.items()}
        self._open: tuple[Path, BinaryIO] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        shards = _shards(self.specs, limit)
        for number, names in enumerate(shards, 1):
            path = folder / (WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors")
            self._begin(path, names)

    def _begin(self, path: Path, names: list[str]) -> None:
        header, offsets = layout({name: self.specs[name] for name in names})
        self._places |= {name: _At(path, offset) for name, offset in offsets.items()}
        with disk_errors(path):
            path.write_bytes(header)

    def write(self, name: str, tensor: Tensor, entry: int | None = None) -> None:
        """Write a tensor, or its entry `entry` along the first axis."""
        spec, (path, offset) = self.specs[name], self._places[name]
        if entry is not None:
            spec = spec.entry()
            offset += entry * spec.bytes
        if Spec(tensor.dtype, tuple(tensor.shape)) != spec:
            raise ValueError(f"'{name}' is to be {spec}, not {dtype_name(tensor.dtype)} {list(tensor.shape)}")
        with disk_errors(path):
            file = self._file(path)
            file.seek(offset)
            file.write(bytes_of(tensor.detach().cpu().contiguous()))
        self._missing[name] -= spec.bytes

    def _file(self, path: Path) -> BinaryIO:
        if self._open is None or self._open[0] != path:
            self._close()
            self._open = path, path.open("r+b")
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()
        if error is not None:
            return
        unfinished = [name for name, left in self._missing.items() if left]
        if unfinished:
            raise RuntimeError(f"tensors never written: {', '.join(unfinished)}")
        paths = {name: place.path.name for name, place in self._places.items()}
        if len(set(paths.values())) > 1:
            total = sum(spec.bytes for spec in self.specs.values())
            write_json(self._folder / INDEX, {"metadata": {"total_size": total}, "weight_map": paths})


def layout(specs: Mapping[str, Spec]) -> tuple[bytes, dict[str, int]]:
    """The header of a safetensors file of these tensors in this order, and where in it the bytes of each begin."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end, begins = 0, {}
    for name, spec in specs.items():
        begins[name], end = end, end + spec.bytes
        header[name] = {"dtype": dtype_code(spec.dtype), "shape": spec.shape, "data_offsets": (begins[name], end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    before = len(text).to_bytes(8, "little") + text
    return before, {name: len(before) + begin for name, begin in begins.items()}


def _shards(specs: Mapping[str, Spec], limit: int | None) -> list[list[str]]:
    """Names by file, in order; within a file the widest dtypes come first, which keeps every tensor aligned."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if limit is not None and shards[-1] and size + spec.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += spec.bytes
    return [sorted(names, key=lambda name: -specs[name].dtype.itemsize) for names in shards]
