"""safetensors files, whole or in shards, one tensor at a time: how models larger than memory are read and written.

Offsets are read from and written to the files' headers directly, so that nothing but the tensor at hand is in memory.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smelt.errors import InputError
from smelt.files import disk_errors, read_json, write_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Spec(NamedTuple):
    """What a tensor is, without its numbers."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)} {list(self.shape)}"

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * torch.Size(self.shape).numel()

    def entry(self) -> "Spec":
        """One entry along the first axis."""
        return Spec(self.dtype, self.shape[1:])


class Source(Protocol):
    """Named tensors that are read one at a time, whole or one entry along the first axis."""

    @property
    def specs(self) -> Mapping[str, Spec]: ...

    def read(self, name: str, entry: int | None = None) -> Tensor:
        """A tensor in the dtype it is stored in, or its entry `entry` along the first axis."""


class _At(NamedTuple):
    path: Path
    offset: int


class TensorFolder:
    """The tensors of a folder: `model.safetensors`, or the shards that its index lists.

    InputError when a file is missing or damaged, or when there are only pickles, which are never opened.
    """

    def __init__(self, folder: Path) -> None:
        self.specs: dict[str, Spec] = {}
        self._places: dict[str, _At] = {}
        for path in _files(folder):
            for name, spec, offset in _header(path):
                if name in self.specs:
                    raise InputError(f"{path}: '{name}' is in {self._places[name].path.name} too; remove one of them")
                self.specs[name], self._places[name] = spec, _At(path, offset)

    def rename(self, new: Callable[[str], str]) -> None:
        """Call every tensor `new` of its name."""
        self.specs = {new(name): spec for name, spec in self.specs.items()}
        self._places = {new(name): place for name, place in self._places.items()}

    def read(self, name: str, entry: int | None = None) -> Tensor:
        """See `Source`."""
        spec, (path, offset) = self.specs[name], self._places[name]
        if entry is not None:
            spec = spec.entry()
            offset += entry * spec.bytes
        tensor = torch.empty(spec.shape, dtype=spec.dtype)
        with path.open("rb") as file:
            file.seek(offset)
            if file.readinto(_bytes(tensor)) != spec.bytes:
                raise InputError(f"{path}: damaged safetensors file ('{name}' is cut off); copy it again")
        return tensor


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
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            spec = self.specs[name]
            header[name] = {"dtype": _CODES[spec.dtype], "shape": spec.shape, "data_offsets": (end, end + spec.bytes)}
            self._places[name] = _At(path, end)
            end += spec.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        for name in names:
            self._places[name] = _At(path, self._places[name].offset + 8 + len(text))
        with disk_errors(path):
            path.write_bytes(len(text).to_bytes(8, "little") + text)

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
            file.write(_bytes(tensor.detach().cpu().contiguous()))
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


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


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


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if index.is_file():
        return [folder / name for name in sorted(set(_weight_map(index).values()))]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES) if folder.is_dir() else []
    if pickles:
        raise InputError(
            f"{folder}: only pickled weights ({pickles[0]}), which can run code when opened; convert them to "
            "safetensors with transformers' save_pretrained on a machine you trust with them"
        )
    raise InputError(f"{folder}: no {WEIGHTS}; copy the checkpoint again, whole")


def _weight_map(index: Path) -> Mapping[str, str]:
    content = read_json(index)
    weights = content.get("weight_map") if isinstance(content, dict) else None
    names = weights.values() if isinstance(weights, dict) else [None]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InputError(f"{index}: has no weight_map of tensor to file name; copy the checkpoint again")
    return weights or {}


def _header(path: Path) -> Iterator[tuple[str, Spec, int]]:
    """Name, dtype and shape of every tensor in a file, and where in it its bytes begin."""
    with reading(path):  # the library checks the header against the file
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            dtype = _DTYPES.get(entry["dtype"])
            if dtype is None:
                raise InputError(f"{path}: '{name}' is stored as {entry['dtype']}; use a checkpoint in bfloat16")
            yield name, Spec(dtype, tuple(entry["shape"])), 8 + length + entry["data_offsets"][0]


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """An open safetensors file; InputError when it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; the model folder is incomplete, copy it again")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path}: damaged safetensors file ({error}); copy it again") from None
