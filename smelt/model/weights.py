"""Weights on disk: our own layout, and what any safetensors folder shares (safe reading, filling a decoder)."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from smelt.errors import InputError
from smelt.files import disk_errors, read_json, write_json
from smelt.model.decoder import Decoder
from smelt.recipe.sections.model import Model

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def save_weights(model: Decoder, folder: Path) -> None:
    """Write `model.safetensors` (our names, float32) and `model.json` (model section, vocabulary, dtype)."""
    write_tensors(folder / WEIGHTS, {name: tensor.detach() for name, tensor in model.named_parameters()})
    section = model.config.model_dump(mode="json")
    write_json(folder / DESCRIPTION, {"model": section, "vocab": model.vocab, "dtype": dtype_name(model.dtype)})


def load_weights(folder: Path, dtype: torch.dtype | None = None) -> Decoder:
    """The decoder that `save_weights` wrote; `dtype` None keeps the activations' dtype it was saved with."""
    description = read_json(folder / DESCRIPTION)
    try:
        config = Model.model_validate(description["model"])
        vocab, saved = int(description["vocab"]), description.get("dtype", "float32")
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder / DESCRIPTION}: not a model description ({reason}); save the model again") from None
    with reading(folder / WEIGHTS) as file:
        files = dict.fromkeys(file.keys(), file)
        try:
            return filled(config, vocab, dtype or getattr(torch, saved), files)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None


def filled(
    config: Model,
    vocab: int,
    dtype: torch.dtype | None,
    files: Mapping[str, Any],
    stored_name: Callable[[str], str] = str,
) -> Decoder:
    """A decoder with weights from open safetensors files, in evaluation mode.

    `files` maps each stored tensor to its file, `stored_name` a parameter's name to the stored one; `dtype` None takes
    the one the embedding is stored in. InputError names the first tensor that is missing, unknown or mis-shaped.
    """
    with torch.device("meta"):
        model = Decoder(config, vocab)
    expected = {stored_name(name): (name, parameter.shape) for name, parameter in model.named_parameters()}
    for stored in expected:
        if stored not in files:
            raise InputError(f"tensor '{stored}' is missing from the weights; copy the model folder again, whole")
    tensors = {}
    for stored, file in files.items():
        if stored not in expected:
            raise InputError(
                f"tensor '{stored}' is in the weights but not in the model described beside them; mend one"
            )
        name, shape = expected[stored]
        tensor = file.get_tensor(stored)
        if tensor.shape != shape or not tensor.is_floating_point():
            raise InputError(
                f"tensor '{stored}' is {dtype_name(tensor.dtype)} {list(tensor.shape)} where the model described "
                f"beside it needs floating point {list(shape)}; mend one"
            )
        if name == "embedding.weight":
            model.dtype = dtype or tensor.dtype
        tensors[name] = tensor.to(torch.float32, copy=True)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    with disk_errors(path):
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, {"format": "pt"})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


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


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
