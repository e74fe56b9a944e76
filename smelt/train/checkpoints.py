"""Checkpoints: self-contained directories of safetensors and JSON, whole or absent, no pickle.

`step-00001000/` holds weights, optimizer state, the frozen recipe, the tokenizer, and a manifest written last.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from smelt.errors import InputError
from smelt.files import MANIFEST, read_json, write_json, write_text
from smelt.model.tensor_files import Spec, TensorFolder
from smelt.model.weights import Description, write_description
from smelt.parallel.boxes import boxes
from smelt.recipe.dump import to_yaml
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer

_NAME = re.compile(r"step-(\d{8})")
MODEL, OPTIMIZER = "model", "optimizer"  # stems of the files


@dataclass
class Progress:
    """Where a run stands: finished steps, tokens consumed, in all and by source (as `DataOrder.consumed` has it),
    restarts so far, and the data it reads: one fingerprint of all, and that of each stream of tokens by name."""

    step: int = 0
    tokens: int = 0
    life: int = 0
    data: str = ""
    consumed: dict[str, dict[str, float]] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is made from, on each rank.

    `parameters` are this rank's by their names in the plain decoder, `state` the optimizer's tensors and whatever else
    goes on with it: `KIND.PARAMETER` laid out like the parameter (or a scalar), or a tensor of any other name that is
    equal on all ranks. Both may be DTensors.
    """

    recipe: Recipe
    tokenizer: Tokenizer
    at: Progress
    description: Description
    parameters: Mapping[str, Tensor]
    state: Mapping[str, Tensor]

    def write_facts(self, folder: Path) -> None:
        """Write all that is no tensor."""
        write_description(folder, self.description)
        write_json(folder / "state.json", asdict(self.at))
        write_text(folder / "recipe.yaml", to_yaml(self.recipe))
        self.tokenizer.save(folder / "tokenizer")


def checkpoint_path(run: Path, step: int) -> Path:
    """`RUN/checkpoints/step-00001000`."""
    return run / "checkpoints" / f"step-{step:08d}"


def step_in(name: str) -> int | None:
    """The step in a checkpoint's name; None for any other name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def step_of(path: Path) -> int:
    """The step of a checkpoint."""
    step = step_in(path.name)
    assert step is not None
    return step


def checkpoints(run: Path) -> list[Path]:
    """The run's finished checkpoints, oldest first."""
    found = [path for path in (run / "checkpoints").glob("step-*") if step_in(path.name) is not None]
    return sorted(path for path in found if (path / MANIFEST).is_file())


def read_progress(path: Path) -> Progress:
    """Where the run stood."""
    return Progress(**read_json(path / "state.json"))


def load_parameters(path: Path, parameters: Mapping[str, Tensor]) -> None:
    """Fill this rank's parameters in place, however the ranks that saved them had shared them out."""
    stored = TensorFolder(path)
    for name, parameter in parameters.items():
        expected = Spec(parameter.dtype, tuple(parameter.shape))
        if name not in stored.specs or stored.specs[name].shape != expected.shape:
            there = stored.specs.get(name, "missing")
            raise InputError(f"{path}: '{name}' is {there} where the model has {expected}; the recipe must be its own")
        _fill(stored, name, parameter)


def load_state(path: Path, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The `Snapshot.state` that belongs to these parameters.

    Each tensor of its parameter's shape is laid out and placed like that; others are whole, on the CPU.
    """
    stored, known = TensorFolder(path, OPTIMIZER), TensorFolder(path).specs
    state = {}
    for name, spec in stored.specs.items():
        of = name.partition(".")[2]
        if of in known and of not in parameters:
            continue
        like = parameters.get(of)
        if like is not None and spec.shape and spec.shape == tuple(like.shape):
            state[name] = torch.empty_like(like.detach(), dtype=spec.dtype)
        else:
            state[name] = torch.empty(spec.shape, dtype=spec.dtype)
        _fill(stored, name, state[name])
    return state


def _fill(stored: TensorFolder, name: str, tensor: Tensor) -> None:
    for box, part in boxes(tensor):
        stored.fill(name, box.begin, part)
