"""A Hugging Face folder as a decoder, tensor by tensor."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from smelt.errors import InputError
from smelt.files import read_json
from smelt.model.decoder import Decoder
from smelt.model.families.family import Family
from smelt.model.families.table import FAMILIES
from smelt.model.weights import WEIGHTS, filled, reading
from smelt.recipe.sections.model import Model

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def import_model(folder: Path, dtype: torch.dtype | None = None) -> Decoder:
    """The decoder in `folder` (`config.json` and safetensors, whole or sharded); weights become float32.

    `dtype` is that of the activations; None takes the dtype the weights are stored in. InputError names the field or
    tensor that does not fit, or says that only pickles are there, which are never opened.
    """
    family, section, vocab = _description(folder)
    with ExitStack() as stack:
        files = {name: file for name, file in _open(folder, stack).items() if not _buffer(name)}
        if section.tie_embeddings:
            _drop_tied_head(folder, files, family)
        try:
            return filled(section, vocab, dtype, files, family.theirs)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None


def _description(folder: Path) -> tuple[Family, Model, int]:
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; a Hugging Face model folder has one, check the path")
    raw = read_json(path)
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind not in FAMILIES:
        raise InputError(f"{path}: model_type '{kind}' is not supported; supported are {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    try:
        config = family.config(raw)
        return family, family.read(config), config["vocab_size"]
    except InputError as error:
        raise InputError(f"{folder}/{error}") from None
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(f"{path}: not a usable {kind} config ({reason}); restore it") from None


def _open(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Tensor name -> open file that holds it."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        paths = [folder / WEIGHTS]
    elif index.is_file():
        paths = [folder / name for name in sorted(set(_weight_map(index).values()))]
    else:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise InputError(
                f"{folder}: only pickled weights ({pickles[0]}), which can run code when opened; convert them to "
                "safetensors with transformers' save_pretrained on a machine you trust with them"
            )
        raise InputError(f"{folder}: no {WEIGHTS}; copy the checkpoint again, whole")
    files = [stack.enter_context(reading(path)) for path in paths]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118


def _weight_map(index: Path) -> Mapping[str, str]:
    content = read_json(index)
    weights = content.get("weight_map") if isinstance(content, dict) else None
    names = weights.values() if isinstance(weights, dict) else [None]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InputError(f"{index}: has no weight_map of tensor to file name; copy the checkpoint again")
    return weights or {}


def _drop_tied_head(folder: Path, theirs: dict[str, Any], family: Family) -> None:
    """Some tied checkpoints store the embedding twice; drop the second when it is the same."""
    head, embedding = family.theirs("head.weight"), family.theirs("embedding.weight")
    if head in theirs and embedding in theirs:
        if not torch.equal(theirs[head].get_tensor(head), theirs[embedding].get_tensor(embedding)):
            raise InputError(
                f"{folder}: config.json ties the embeddings, but '{head}' differs from '{embedding}'; set "
                "'tie_word_embeddings' to false"
            )
        del theirs[head]


def _buffer(name: str) -> bool:
    """Frequencies that old checkpoints stored; they follow from the config."""
    return name.endswith(".rotary_emb.inv_freq")
