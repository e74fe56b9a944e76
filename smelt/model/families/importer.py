"""A Hugging Face folder as a decoder, or as a folder in our layout, tensor by tensor."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from smelt.errors import InputError
from smelt.files import read_json
from smelt.model.decoder import Decoder
from smelt.model.families.family import Config, Family
from smelt.model.families.rules import Use, our_specs, their_specs, uses
from smelt.model.families.table import FAMILIES
from smelt.model.tensor_files import TensorFolder
from smelt.model.tensor_writer import TensorWriter
from smelt.model.weights import Description, check_specs, filled, parameter_specs, write_description
from smelt.recipe.sections.model import Model

CARRIED = ("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
"""Fields of config.json that an import keeps for a later export: they are no part of a model section."""


def import_model(
    folder: Path, dtype: torch.dtype | None = None, warn: Callable[[str], None] = warnings.warn
) -> Decoder:
    """The decoder in `folder` (`config.json` and safetensors, whole or sharded); weights become float32.

    `dtype` is that of the activations; None takes the dtype the embedding is stored in. InputError names the field or
    tensor that does not fit, or says that only pickles are there, which are never opened. `warn` is told of stored
    tensors that are left out.
    """
    found = _opened(folder, warn)
    return filled(found.section, found.vocab, dtype or found.dtype, found.tensors())


def import_weights(folder: Path, out: Path, warn: Callable[[str], None] = warnings.warn) -> int:
    """Write the model in `folder` into the folder `out` in our layout, in the dtypes it is stored in; returns how many
    parameters it has.

    One tensor is in memory at a time, of experts one expert. Errors are those of `import_model`.
    """
    found = _opened(folder, warn)
    specs = our_specs(found.uses, found.stored.specs)
    with TensorWriter(out, specs) as writer:
        for name, entry, tensor in found.tensors():
            writer.write(name, tensor, entry)
    imported = {"family": found.family, **{name: found.raw[name] for name in CARRIED if name in found.raw}}
    write_description(out, Description(found.section, found.vocab, found.dtype, imported))
    return sum(torch.Size(spec.shape).numel() for spec in specs.values())


@dataclass(frozen=True)
class _Opened:
    """A Hugging Face folder whose config and tensors have been found to fit each other."""

    family: str
    raw: Config
    section: Model
    vocab: int
    stored: TensorFolder
    uses: list[Use]

    @property
    def dtype(self) -> torch.dtype:
        use = next(use for use in self.uses if use.ours[0].name == "embedding.weight")
        return self.stored.specs[use.theirs[0].name].dtype

    def tensors(self) -> Iterator[tuple[str, int | None, Tensor]]:
        """Every parameter, or each of its entries along the first axis, in the dtype it is stored in."""
        for use in self.uses:
            read = [self.stored.read(*place) for place in use.theirs]
            for place, tensor in zip(use.ours, use.load(read), strict=True):
                yield *place, tensor


def _opened(folder: Path, warn: Callable[[str], None]) -> _Opened:
    name, raw, section = read_config(folder)
    family, vocab = FAMILIES[name], int(raw["vocab_size"])
    parameters = parameter_specs(section, vocab)
    try:
        found = uses(family.rules, section, parameters)
    except ValueError as error:
        raise InputError(f"{folder}/config.json: not a model of family {name} ({error}); correct it") from None
    stored = TensorFolder(folder)
    try:
        _complete_names(family, stored)
        _leave_out(family, section, stored, warn)
        check_specs(their_specs(found, parameters), stored)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    return _Opened(name, raw, section, vocab, stored, found)


def read_config(folder: Path) -> tuple[str, dict[str, Any], Model]:
    """Family, fields and model section of a folder's `config.json`; InputError when it cannot be honoured."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; a Hugging Face model folder has one, check the path")
    raw = read_json(path)
    name = raw.get("model_type") if isinstance(raw, dict) else None
    if name not in FAMILIES:
        raise InputError(f"{path}: model_type '{name}' is not supported; supported are {', '.join(FAMILIES)}")
    try:
        return name, raw, FAMILIES[name].model(raw)
    except InputError as error:
        raise InputError(f"{folder}/{error}") from None
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(f"{path}: not a usable {name} config ({reason}); restore it") from None


def _complete_names(family: Family, stored: TensorFolder) -> None:
    """A model that was saved without its head has names without their first part, which is put back."""
    embedding = _theirs(family, "embedding.weight")
    prefix, _, rest = embedding.partition(".")
    if embedding not in stored.specs and rest in stored.specs:
        stored.rename(lambda name: f"{prefix}.{name}")


def _theirs(family: Family, ours: str) -> str:
    return next(rule.theirs[0] for rule in family.rules if rule.ours == (ours,))


def _leave_out(family: Family, section: Model, stored: TensorFolder, warn: Callable[[str], None]) -> None:
    """Forget stored tensors that a forward pass does not need: buffers, a tied head, multi-token layers with a word."""
    unused = sorted(name for name in stored.specs if family.unused(name, section))
    if unused:
        warn(f"{len(unused)} tensors that only multi-token prediction uses are left out, '{unused[0]}' the first")
    head, embedding = _theirs(family, "head.weight"), _theirs(family, "embedding.weight")
    if section.tie_embeddings and head in stored.specs and embedding in stored.specs:
        if not torch.equal(stored.read(head), stored.read(embedding)):
            raise InputError(
                f"config.json ties the embeddings, but '{head}' differs from '{embedding}'; set "
                "'tie_word_embeddings' to false"
            )
        unused.append(head)
    buffers = [name for name in stored.specs if name.endswith(".rotary_emb.inv_freq")]  # they follow from the config
    for name in (*unused, *buffers):
        del stored.specs[name]
