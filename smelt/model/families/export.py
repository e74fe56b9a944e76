"""A decoder as a Hugging Face folder."""

from pathlib import Path
from typing import Any

from smelt.errors import InputError
from smelt.files import MANIFEST, whole_directory, write_json
from smelt.model.decoder import Decoder
from smelt.model.families.table import FAMILIES
from smelt.model.weights import WEIGHTS, dtype_name, write_tensors
from smelt.recipe.sections.model import Model
from smelt.tokenizer.tokenizer import Tokenizer


def export_model(
    model: Decoder, out: Path, *, tokenizer: Tokenizer | None = None, context: int, family: str | None = None
) -> None:
    """Write what `transformers.AutoModelForCausalLM.from_pretrained(out)` reads, with the tokenizer when given.

    Weights are stored in `model.dtype`; `context` becomes `max_position_embeddings`. The family is the first that can
    express the model: llama when every layer has rotary positions, else smollm3. InputError when none can, or not the
    `family` asked for, or when `out` holds something that was not exported.
    """
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is no exported model; choose another folder or empty it")
    name, fields = _choose(model.config, family)
    ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if tokenizer is not None:
        stops = list(dict.fromkeys([tokenizer.eos, tokenizer.eot]))
        ids.update(eos_token_id=stops if len(stops) > 1 else stops[0], pad_token_id=tokenizer.pad)
    config = {
        "architectures": [FAMILIES[name].architecture],
        "model_type": name,
        "vocab_size": model.vocab,
        **fields,
        "max_position_embeddings": context,
        **ids,
        "dtype": dtype_name(model.dtype),
    }
    with whole_directory(out, {"kind": "hugging-face", "family": name}) as folder:
        write_tensors(
            folder / WEIGHTS,
            {FAMILIES[name].theirs(ours): tensor.detach().to(model.dtype) for ours, tensor in model.named_parameters()},
        )
        write_json(folder / "config.json", config)
        if tokenizer is not None:
            write_json(folder / "generation_config.json", ids)
            tokenizer.save(folder)


def _choose(config: Model, wanted: str | None) -> tuple[str, dict[str, Any]]:
    if wanted is not None and wanted not in FAMILIES:
        raise InputError(f"family '{wanted}' is not one we export; choose from {', '.join(FAMILIES)}")
    reasons = []
    for name in [wanted] if wanted else FAMILIES:
        try:
            return name, FAMILIES[name].write(config)
        except ValueError as error:
            reasons.append(f"{name}: {error}")
    raise InputError(
        f"model: cannot be exported ({'; '.join(reasons)}); make the layers alike or choose another family"
    )
