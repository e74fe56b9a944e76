"""Our own layout on disk, `model.json` beside safetensors under our names, and filling a decoder from any tensors."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smelt.errors import InputError
from smelt.files import read_json, write_json
from smelt.model.decoder import Decoder
from smelt.model.tensor_files import FLOATS, Source, Spec, TensorFolder, dtype_name
from smelt.model.tensor_writer import TensorWriter
from smelt.recipe.sections.model import Model

DESCRIPTION = "model.json"


class Description(NamedTuple):
    """What `model.json` says: the model section, the size of the vocabulary, the dtype of activations, and, of an
    imported model, the `family` it came from and the fields of its config.json that are no part of a model section."""

    section: Model
    vocab: int
    dtype: torch.dtype
    imported: Mapping[str, Any]


class Parameters:
    """The parameters of a decoder as a `Source` of tensors."""

    def __init__(self, model: Decoder) -> None:
        self._tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self.specs = {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in self._tensors.items()}

    def read(self, name: str, entry: int | None = None) -> Tensor:
        return self._tensors[name] if entry is None else self._tensors[name][entry]


def save_weights(model: Decoder, folder: Path) -> None:
    """Write `model.safetensors` (our names, float32) and `model.json`."""
    source = Parameters(model)
    with TensorWriter(folder, source.specs, limit=None) as writer:
        for name in source.specs:
            writer.write(name, source.read(name))
    write_description(folder, Description(model.config, model.vocab, model.dtype, {}))


def write_description(folder: Path, description: Description) -> None:
    """Write `model.json`."""
    section, vocab, dtype, imported = description
    content = {"model": section.model_dump(mode="json"), "vocab": vocab, "dtype": dtype_name(dtype)}
    write_json(folder / DESCRIPTION, {**content, **({"imported": imported} if imported else {})})


def read_description(folder: Path) -> Description:
    """What `model.json` says; InputError when it is missing or damaged."""
    content = read_json(folder / DESCRIPTION)
    try:
        section = Model.model_validate(content["model"])
        dtype = getattr(torch, content.get("dtype", "float32"))
        return Description(section, int(content["vocab"]), dtype, content.get("imported", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder / DESCRIPTION}: not a model description ({reason}); save the model again") from None


def load_weights(folder: Path, dtype: torch.dtype | None = None) -> Decoder:
    """The decoder in a folder of our layout, its weights in float32; `dtype` None keeps the activations' dtype."""
    description, stored = read_description(folder), TensorFolder(folder)
    section, vocab = description.section, description.vocab
    try:
        check_specs(parameter_specs(section, vocab), stored)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    tensors = ((name, None, stored.read(name)) for name in stored.specs)
    return filled(section, vocab, dtype or description.dtype, tensors)


def parameter_specs(section: Model, vocab: int) -> dict[str, Spec]:
    """Dtype and shape of every parameter of a model."""
    with torch.device("meta"):
        return Parameters(Decoder(section, vocab)).specs


def check_specs(expected: Mapping[str, Spec], stored: Source) -> None:
    """InputError for the first tensor that is missing, mis-shaped or no floating point, or that nothing expects."""
    for name, spec in expected.items():
        if name not in stored.specs:
            raise InputError(f"tensor '{name}' is missing from the weights; copy the model folder again, whole")
        there = stored.specs[name]
        if there.shape != spec.shape or there.dtype not in FLOATS:
            raise InputError(
                f"tensor '{name}' is {there} where the model described beside it needs floating point "
                f"{list(spec.shape)}; mend one"
            )
    for name in stored.specs:
        if name not in expected:
            raise InputError(f"tensor '{name}' is in the weights but not in the model described beside them; mend one")


def filled(
    section: Model, vocab: int, dtype: torch.dtype, tensors: Iterable[tuple[str, int | None, Tensor]]
) -> Decoder:
    """A decoder in evaluation mode with float32 copies of `tensors`: name, entry along the first axis or None, values.

    They must be all of its parameters.
    """
    with torch.device("meta"):
        model = Decoder(section, vocab, dtype)
    parameters = {name: torch.empty(parameter.shape) for name, parameter in model.named_parameters()}
    for name, entry, tensor in tensors:
        (parameters[name] if entry is None else parameters[name][entry]).copy_(tensor)
    model.load_state_dict(parameters, assign=True)
    return model.eval()
