"""Starting from a checkpoint: its model section with a recipe's changes, and its weights wherever they still fit."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from smelt.errors import InputError
from smelt.files import MANIFEST, fingerprint, read_json, sha256, stamp
from smelt.model.decoder import Decoder
from smelt.model.families.importer import read_config
from smelt.model.init import initialise
from smelt.model.load import load_model
from smelt.model.weights import DESCRIPTION, read_description
from smelt.recipe.dump import differences
from smelt.recipe.mistakes import in_words
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model, WarmStart
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer

GROWING = ("embedding.weight", "head.weight")


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with its model written out: what a warm start takes from its checkpoint, and `source`, which
    identifies that checkpoint. InputError when there is no checkpoint or the changes do not fit it."""
    model: Model | WarmStart = recipe.section("model")
    if model.load is None or (isinstance(model, Model) and model.source is not None):
        return recipe
    folder = Path(model.load).expanduser()
    section, _ = describe(folder)
    try:
        if isinstance(model, WarmStart):
            whole = model.applied(section, identity(folder))
        else:
            whole = model.model_copy(update={"source": identity(folder)})
        return Recipe.model_validate({**recipe.model_dump(), "model": whole})
    except ValidationError as error:
        raise InputError(f"model: cannot be applied to {folder}: {in_words(error.errors()[0])}") from None


def describe(folder: Path) -> tuple[Model, int]:
    """Model section and vocabulary of a checkpoint, ours or Hugging Face's, its weights unread."""
    if (folder / DESCRIPTION).is_file():
        description = read_description(folder)
        return description.section, description.vocab
    if (folder / "config.json").is_file():
        _, fields, section = read_config(folder)
        return section, int(fields["vocab_size"])
    raise InputError(
        f"model.load: {folder}: not a model folder (neither {DESCRIPTION} nor config.json); give a checkpoint such as "
        "runs/RUN/checkpoints/step-00001000 or a Hugging Face folder; a run that began from one that is gone goes on "
        "with its own recipe, runs/RUN/recipe.yaml"
    )


def identity(folder: Path) -> str:
    """Identifies a checkpoint: its manifest, or its description and the names, sizes and times of its weights."""
    if (folder / MANIFEST).is_file():
        return fingerprint(read_json(folder / MANIFEST)["files"])
    described = [sha256(path) for name in (DESCRIPTION, "config.json") if (path := folder / name).is_file()]
    weights = [[path.name, *stamp(path)[1:]] for path in sorted(folder.glob("*.safetensors"))]
    return fingerprint([described, weights])


class WarmDecoder(NamedTuple):
    """A decoder filled from a checkpoint, and every way in which it differs from it, in words."""

    model: Decoder
    changes: list[str]


def warm_decoder(config: Model, tokenizer: Tokenizer, dtype: torch.dtype, seed: int) -> WarmDecoder:
    """The decoder of a resolved `config`, with the weights of the checkpoint `config.load`.

    Rows of a vocabulary that has grown, and parameters that the checkpoint lacks, start as functions of `seed` and
    their names, as in a model without a checkpoint. InputError when the checkpoint is not the one that the recipe was
    resolved with, a tensor has another shape, or the tokenizer gives the checkpoint's ids to other tokens.
    """
    folder = Path(config.load or "").expanduser()
    if identity(folder) != config.source:
        raise InputError(f"model.load: {folder} is no longer what model.source ({config.source}) says; restore it")
    _check_tokenizer(tokenizer, folder, describe(folder)[1])
    old = load_model(folder)
    model = Decoder(config, max(tokenizer.padded, old.vocab), dtype)
    initialise(model, seed)
    given, fresh = old.state_dict(), []
    for name, tensor in model.state_dict().items():
        if name in given:
            _copy(name, given.pop(name), tensor, folder)
        else:
            fresh.append(name)
    changes = [str(change) for change in differences(_shown(old.config), _shown(config))]
    if model.vocab > old.vocab:
        changes.append(f"vocabulary: {old.vocab} -> {model.vocab}, the new rows drawn from the seed")
    changes += [f"{name}: new, drawn from the seed" for name in _grouped(fresh)]
    changes += [f"{name}: left behind, the model has no such parameter" for name in _grouped(given)]
    return WarmDecoder(model, changes)


@torch.no_grad()
def _copy(name: str, old: Tensor, new: Tensor, folder: Path) -> None:
    grown = name in GROWING and len(new) > len(old) and new.shape[1:] == old.shape[1:]
    if not grown and new.shape != old.shape:
        raise InputError(
            f"model: '{name}' is {list(old.shape)} in {folder} and {list(new.shape)} in the recipe; a warm start keeps "
            "shapes, so undo that change, or train from the start"
        )
    (new[: len(old)] if grown else new).copy_(old)


def _check_tokenizer(tokenizer: Tokenizer, folder: Path, vocab: int) -> None:
    """The checkpoint's own tokenizer, where it has one, must be the beginning of ours; special tokens may change."""
    place = next((it for it in (folder / "tokenizer", folder) if (it / "tokenizer.json").is_file()), None)
    if place is None:
        if tokenizer.padded < vocab:
            raise InputError(
                f"tokenizer: has {len(tokenizer)} tokens, the checkpoint {folder} a vocabulary of {vocab}, and no "
                "tokenizer.json to tell whether they fit; copy the checkpoint's there, or give one that is as large"
            )
        return
    ours = tokenizer.vocabulary()
    for token, number in load_tokenizer(place).vocabulary(special=False).items():
        if ours.get(token) != number:
            raise InputError(
                f"tokenizer: token {token!r} is {ours.get(token, 'missing')} here and {number} in {place}, so the "
                f"weights would be read for other tokens; use 'tokenizer: {{load: {place}}}', or one that adds to it"
            )


def _shown(config: Model) -> dict[str, object]:
    return config.model_dump(mode="json", exclude={"load", "source", "init"})


def _grouped(names: Iterable[str]) -> list[str]:
    """Names of tensors, those that differ only in their layer as one with how many there are."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    return [f"{group} ({len(each)} tensors)" if len(each) > 1 else each[0] for group, each in groups.items()]
