"""A decoder, or a folder in our layout, as a Hugging Face folder, tensor by tensor."""

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from smelt.errors import InputError
from smelt.files import replaceable, whole_directory, write_json
from smelt.model.decoder import Decoder
from smelt.model.families.compare import compare
from smelt.model.families.rules import Use, their_specs, uses
from smelt.model.families.table import FAMILIES
from smelt.model.tensor_files import Source, Spec, TensorFolder, dtype_name
from smelt.model.tensor_writer import SHARD_BYTES, TensorWriter
from smelt.model.weights import Description, Parameters, check_specs, filled, parameter_specs, read_description
from smelt.tokenizer.tokenizer import Tokenizer

MULTI_TOKEN = "multi_token."
KIND = "hugging-face"


def export_model(
    model: Decoder,
    out: Path,
    *,
    tokenizer: Tokenizer | None = None,
    context: int,
    family: str | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> None:
    """Write what `transformers.AutoModelForCausalLM.from_pretrained(out)` reads, with the tokenizer when given.

    Weights are stored in `model.dtype`; `context` becomes `max_position_embeddings`. The family is the first that can
    express the model, in the order of `FAMILIES`. InputError when none can, or not the `family` asked for, or when
    `out` holds something that was not exported. `warn` is told of parameters that are left out.
    """
    description = Description(model.config, model.vocab, model.dtype, {})
    _export(Parameters(model), description, out, tokenizer, {"max_position_embeddings": context}, family, warn)


def export_weights(
    folder: Path,
    out: Path,
    *,
    tokenizer: Tokenizer | Path | None = None,
    context: int | None = None,
    family: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    check: bool = False,
    weights: Source | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> str:
    """`export_model` of a folder in our layout with one tensor in memory at a time; returns the family.

    An imported model goes back to the family, the context and the dtypes it came with; float32 masters are stored in
    the dtype of the activations. A `tokenizer` that is a folder is copied as it is. `shard_bytes` bounds the files.
    `check` compares both models block by block before `out` appears. `weights`, if given, are exported in place of
    those in the folder.
    """
    description, stored = read_description(folder), TensorFolder(folder) if weights is None else weights
    try:
        check_specs(parameter_specs(description.section, description.vocab), stored)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    carried = {name: value for name, value in description.imported.items() if name != "family"}
    if context is not None:
        carried["max_position_embeddings"] = context
    wanted = family or description.imported.get("family")
    return _export(stored, description, out, tokenizer, carried, wanted, warn, shard_bytes, check)


def _export(
    source: Source,
    description: Description,
    out: Path,
    tokenizer: Tokenizer | Path | None,
    carried: dict[str, Any],
    wanted: str | None,
    warn: Callable[[str], None],
    shard_bytes: int = SHARD_BYTES,
    check: bool = False,
) -> str:
    replaceable(out, KIND, "exported")
    family, fields, found = _choose(description, _without_multi_token(source.specs, warn), wanted)
    ids = _ids(tokenizer) if isinstance(tokenizer, Tokenizer) else {}
    config = {
        "architectures": [FAMILIES[family].architecture],
        "model_type": family,
        "vocab_size": description.vocab,
        **fields,
        **{"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **carried, **ids},
        "dtype": dtype_name(description.dtype),
    }
    specs = _stored_specs(source, description.dtype, FAMILIES[family].full)
    with whole_directory(out, {"kind": KIND, "family": family}) as folder:
        _write(source, specs, found, folder, shard_bytes)
        write_json(folder / "config.json", config)
        if isinstance(tokenizer, Tokenizer):
            write_json(folder / "generation_config.json", ids)
            tokenizer.save(folder)
        elif tokenizer is not None:
            shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
        if check:
            tensors = ((name, None, source.read(name)) for name in source.specs)
            ours = filled(description.section, description.vocab, description.dtype, tensors)
            compare(_rounded(ours, specs), folder)
    return family


def _stored_specs(source: Source, dtype: torch.dtype, full: str | None) -> dict[str, Spec]:
    """Parameters as they are to be stored: if all are float32 they are masters, and stored in `dtype`, but for those
    whose names end in `full`."""
    masters = all(spec.dtype == torch.float32 for spec in source.specs.values())
    return {
        name: Spec(dtype, spec.shape) if masters and not (full and name.endswith(full)) else spec
        for name, spec in source.specs.items()
    }


def _rounded(model: Decoder, specs: Mapping[str, Spec]) -> Decoder:
    """The model with its weights rounded to the dtypes they are stored in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter.to(specs[name].dtype))
    return model


def _write(source: Source, specs: dict[str, Spec], found: list[Use], folder: Path, shard_bytes: int) -> None:
    with TensorWriter(folder, their_specs(found, specs), shard_bytes) as writer:
        for use in found:
            tensors = [source.read(*place).to(specs[place.name].dtype) for place in use.ours]
            for (name, entry), tensor in zip(use.theirs, use.save(tensors), strict=True):
                writer.write(name, tensor, entry)


def _choose(
    description: Description, parameters: Mapping[str, Spec], wanted: str | None
) -> tuple[str, dict[str, Any], list[Use]]:
    """The family, what it writes into config.json, and its rules at work on these parameters."""
    if wanted is not None and wanted not in FAMILIES:
        raise InputError(f"family '{wanted}' is not one we export; choose from {', '.join(FAMILIES)}")
    reasons: dict[str, list[str]] = {}
    for name in [wanted] if wanted else FAMILIES:
        family = FAMILIES[name]
        try:
            fields = family.fields(description.section)
            return name, fields, uses(family.rules, description.section, parameters)
        except ValueError as error:
            reasons.setdefault(str(error), []).append(name)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    raise InputError(f"model: cannot be exported ({told}); change the model, or the family asked for")


def _without_multi_token(specs: Mapping[str, Spec], warn: Callable[[str], None]) -> dict[str, Spec]:
    left_out = [name for name in specs if name.startswith(MULTI_TOKEN)]
    if left_out:
        warn(f"{len(left_out)} parameters of multi-token prediction are left out: no family loads them")
    return {name: spec for name, spec in specs.items() if name not in left_out}


def _ids(tokenizer: Tokenizer) -> dict[str, Any]:
    stops = list(dict.fromkeys([tokenizer.eos, tokenizer.eot]))
    return {
        "bos_token_id": None,
        "eos_token_id": stops if len(stops) > 1 else stops[0],
        "pad_token_id": tokenizer.pad,
    }
