"""safetensors files, whole, in shards or in pieces, one tensor at a time: how models larger than memory are read.

Offsets are read from the files' headers directly, so that nothing but the tensor at hand is in memory.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smelt.errors import InputError
from smelt.files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PIECES = "pieces.json"
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


class _Piece(NamedTuple):
    """A box of a stored tensor: where in the tensor it begins, its shape, and where its bytes are."""

    begin: tuple[int, ...]
    shape: tuple[int, ...]
    path: Path
    offset: int


class TensorFolder:
    """The tensors of a folder: `model.safetensors`, or the shards that its index lists, or the pieces that many ranks
    wrote. `stem` "optimizer" takes the files of the optimizer.

    InputError when a file is missing or damaged, or when there are only pickles, which are never opened.
    """

    def __init__(self, folder: Path, stem: str = "model") -> None:
        self.specs: dict[str, Spec] = {}
        self._pieces: dict[str, list[_Piece]] = {}
        if (folder / f"{stem}.{PIECES}").is_file():
            self._read_index(folder, f"{stem}.{PIECES}")
            return
        for path in _files(folder, stem):
            for name, spec, offset in _header(path):
                if name in self.specs:
                    other = self._pieces[name][0].path.name
                    raise InputError(f"{path}: '{name}' is in {other} too; remove one of them")
                self.specs[name] = spec
                self._pieces[name] = [_Piece((0,) * len(spec.shape), spec.shape, path, offset)]

    def _read_index(self, folder: Path, file: str) -> None:
        try:
            for name, entry in read_json(folder / file)["tensors"].items():
                self.specs[name] = Spec(_DTYPES[entry["dtype"]], tuple(entry["shape"]))
                self._pieces[name] = [
                    _Piece(tuple(each["begin"]), tuple(each["shape"]), folder / each["file"], each["offset"])
                    for each in entry["pieces"]
                ]
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder / file}: not an index of pieces ({error!r}); copy the checkpoint again"
            ) from None

    def rename(self, new: Callable[[str], str]) -> None:
        """Call every tensor `new` of its name."""
        self.specs = {new(name): spec for name, spec in self.specs.items()}
        self._pieces = {new(name): pieces for name, pieces in self._pieces.items()}

    def read(self, name: str, entry: int | None = None) -> Tensor:
        """See `Source`."""
        spec = self.specs[name]
        begin = [0] * len(spec.shape)
        if entry is None:
            tensor = torch.empty(spec.shape, dtype=spec.dtype)
            self.fill(name, begin, tensor)
            return tensor
        begin[0] = entry
        tensor = torch.empty(1, *spec.shape[1:], dtype=spec.dtype)
        self.fill(name, begin, tensor)
        return tensor[0]

    def fill(self, name: str, begin: Sequence[int], out: Tensor) -> None:
        """Copy into `out` the box of its shape that begins at `begin` in a stored tensor, reading no more than that."""
        for piece in self._pieces[name]:
            low = [max(*pair) for pair in zip(begin, piece.begin, strict=True)]
            ends = zip(begin, out.shape, piece.begin, piece.shape, strict=True)
            high = [min(ours + size, theirs + length) for ours, size, theirs, length in ends]
            if all(first < end for first, end in zip(low, high, strict=True)):
                here = _slices(low, high, begin)
                self._copy(name, piece, _slices(low, high, piece.begin), out[here] if here else out)

    def _copy(self, name: str, piece: _Piece, there: tuple[slice, ...], out: Tensor) -> None:
        """Fill `out` with the part `there` of a piece: whole rows of the piece are read, in one go."""
        dtype = self.specs[name].dtype
        first, rows = (there[0].start, [there[0].stop - there[0].start]) if there else (0, [])
        row = Spec(dtype, piece.shape[1:])
        shape = (*rows, *piece.shape[1:])
        direct = out.dtype == dtype and out.device.type == "cpu" and out.is_contiguous() and tuple(out.shape) == shape
        tensor = out if direct else torch.empty(shape, dtype=dtype)
        try:
            with piece.path.open("rb") as file:
                file.seek(piece.offset + first * row.bytes)
                if file.readinto(bytes_of(tensor)) != Spec(dtype, shape).bytes:
                    raise InputError(f"{piece.path}: damaged safetensors file ('{name}' is cut off); copy it again")
        except FileNotFoundError:
            raise InputError(f"{piece.path}: no such file; the model folder is incomplete, copy it again") from None
        if not direct:
            out.copy_(tensor[(slice(None), *there[1:])] if there else tensor)


def dtype_code(dtype: torch.dtype) -> str:
    """`F32` for `torch.float32`: what safetensors files call it."""
    return _CODES[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _slices(low: Sequence[int], high: Sequence[int], begin: Sequence[int]) -> tuple[slice, ...]:
    """The box from `low` to `high` as slices of what begins at `begin`."""
    return tuple(slice(first - at, end - at) for first, end, at in zip(low, high, begin, strict=True))


def _files(folder: Path, stem: str) -> list[Path]:
    if stem != "model":
        return [folder / f"{stem}.safetensors"]
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
