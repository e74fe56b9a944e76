"""One stage of post-training: a Hugging Face model folder in, one out, with its records beside the weights."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smelt.errors import InputError
from smelt.files import whole_directory, write_json, write_text
from smelt.posttrain.conversations import conversations
from smelt.posttrain.template import FILE, TEMPLATE, check_markers, learnable
from smelt.recipe.sections.posttrain import SupervisedFineTuning
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer

_MISSING = "posttrain: needs {name}, which is not installed; run: pip install 'smelt[post]'"


def run_stage(
    stage: SupervisedFineTuning,
    model: Path,
    out: Path,
    *,
    seed: int,
    device: str = "cpu",
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run a stage on the Hugging Face folder `model` and write the folder `out`, whole or not at all.

    `out` holds the weights, the tokenizer with its chat template, `metrics.jsonl` (a row an optimizer step, which
    `progress` gets too) and `report.json`, which is also returned: {"stage", "kind", "examples", "dropped",
    "truncated", "tokens", "assistant_tokens", "longest", "turns", "steps", "first_loss", "last_loss", "seconds"}.
    Generation with it stops at the end of a turn. Raises InputError for data, a model or an installation that
    cannot be used.
    """
    try:
        import torch
        import transformers

        from smelt.posttrain.examples import encode
        from smelt.posttrain.sft import fine_tune
    except ImportError as error:
        raise InputError(_MISSING.format(name=error.name or "trl")) from None

    start = time.perf_counter()
    rows = conversations(stage.data, seed)
    tokenizer = load_tokenizer(model)
    template = _template(tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(model)
    theirs.chat_template = template
    examples, statistics = encode(rows, theirs, stage.max_length)
    network = _load(model)
    metrics: list[dict[str, Any]] = []

    def record(row: dict[str, Any]) -> None:
        row = {**row, "seconds": round(time.perf_counter() - start, 3)}
        metrics.append(row)
        if progress is not None:
            progress(row)

    fine_tune(network, theirs, examples, stage, seed=seed, device=torch.device(device), record=record)
    report = {
        "stage": stage.name,
        "kind": stage.kind,
        **statistics,
        "steps": len(metrics),
        "first_loss": metrics[0]["loss"],
        "last_loss": metrics[-1]["loss"],
        "seconds": round(time.perf_counter() - start, 3),
    }
    with whole_directory(out, {"kind": "model", "stage": stage.model_dump(mode="json"), "seed": seed}) as folder:
        _save(network, tokenizer, template, folder)
        write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))
        write_json(folder / "report.json", report)
    return report


def _template(tokenizer: Tokenizer) -> str:
    """The tokenizer's own template where it marks the assistant's turns, else ours."""
    own = tokenizer.config.get("chat_template")
    if isinstance(own, str) and learnable(own):
        return own
    check_markers(tokenizer)
    return TEMPLATE


def _load(folder: Path) -> Any:
    """The model in float32, as its optimizer needs it."""
    import torch
    import transformers

    from smelt.posttrain.quiet import quiet

    try:
        with quiet():
            return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: not a model that transformers loads ({reason}); export it again") from None


def _save(network: Any, tokenizer: Tokenizer, template: str, folder: Path) -> None:
    """Write the model so that it ends its turns, and our tokenizer unchanged but for the template."""
    from smelt.posttrain.quiet import quiet

    network.generation_config.eos_token_id = list(dict.fromkeys((tokenizer.eot, tokenizer.eos)))
    network.generation_config.pad_token_id = tokenizer.pad
    with quiet():
        network.save_pretrained(folder)
    tokenizer.config.pop("chat_template", None)
    tokenizer.save(folder)
    write_text(folder / FILE, template)
