"""Checkpoints: self-contained directories of safetensors and JSON, whole or absent, no pickle.

`step-00001000/` holds weights, optimizer state, the frozen recipe, the tokenizer, and a manifest written last.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from smelt.errors import InputError
from smelt.files import MANIFEST, check_directory, read_json, whole_directory, write_json
from smelt.model.decoder import Decoder
from smelt.model.tensor_files import WEIGHTS
from smelt.model.weights import save_weights
from smelt.optim.optimizers import load_optimizer_tensors, optimizer_tensors
from smelt.recipe.dump import to_yaml
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer

_NAME = re.compile(r"step-(\d{8})")


@dataclass
class Progress:
    """Where a run stands: finished steps, tokens consumed, restarts so far, and the data it reads."""

    step: int = 0
    tokens: int = 0
    life: int = 0
    data: str = ""


def checkpoint_path(run: Path, step: int) -> Path:
    """`RUN/checkpoints/step-00001000`."""
    return run / "checkpoints" / f"step-{step:08d}"


def save_checkpoint(
    run: Path, recipe: Recipe, tokenizer: Tokenizer, model: Decoder, optimizer: torch.optim.Optimizer, at: Progress
) -> Path:
    """Write the checkpoint of step `at.step`, complete or not at all."""
    path = checkpoint_path(run, at.step)
    with whole_directory(path, {"kind": "checkpoint", "step": at.step}) as folder:
        save_weights(model, folder)
        save_file(optimizer_tensors(optimizer), folder / "optimizer.safetensors")
        write_json(folder / "state.json", asdict(at))
        (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
        tokenizer.save(folder / "tokenizer")
    return path


def load_checkpoint(path: Path, model: Decoder, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore model and optimizer in place."""
    model.load_state_dict(load_file(path / WEIGHTS))
    load_optimizer_tensors(optimizer, load_file(path / "optimizer.safetensors"))
    return Progress(**read_json(path / "state.json"))


def checkpoints(run: Path) -> list[Path]:
    """The run's finished checkpoints, oldest first."""
    found = [path for path in (run / "checkpoints").glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(path for path in found if (path / MANIFEST).is_file())


def newest_whole(run: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose every file matches its manifest; each damaged one is passed over with a warning."""
    for path in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            check_directory(path)
            return path
        except InputError as problem:
            warn(f"passing over a damaged checkpoint: {problem}")
    return None


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` finished checkpoints of this run."""
    for path in checkpoints(run)[:-keep]:
        shutil.rmtree(path)
