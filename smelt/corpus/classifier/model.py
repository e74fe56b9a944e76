"""A trained classifier: what it says of texts, and its folder of safetensors and JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from smelt.corpus.classifier.features import Counts, Shape, counter
from smelt.errors import InputError
from smelt.files import check_directory, read_json, whole_directory, write_json

KIND = "classifier"


class Facts(BaseModel):
    """`classifier.json`: a `regression` speaks in units of its labels, within `low` and `high`; a `classification`
    gives the probability of `positive`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: Literal["regression", "classification"]
    shape: Shape
    low: float = 0.0
    high: float = 1.0
    positive: str | None = None
    trained: dict[str, Any] = {}


class Model:
    """`weights` [buckets] and a bias, over the n-grams of `facts.shape`."""

    def __init__(self, facts: Facts, weights: NDArray[np.float32], bias: float) -> None:
        self.facts, self.weights, self.bias = facts, weights, bias
        self._count = counter(facts.shape)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Scores [texts]."""
        return self.scores(self._count(texts))

    def scores(self, counts: Counts) -> NDArray[np.float32]:
        """Of rows already counted."""
        weighed = self.weights[counts.indices].astype(np.float64) * counts.values()
        rows = np.repeat(np.arange(len(counts.starts) - 1), np.diff(counts.starts))
        raw = np.bincount(rows, weighed, len(counts.starts) - 1) + self.bias
        if self.facts.task == "classification":
            return np.asarray(1 / (1 + np.exp(-raw)), dtype=np.float32)
        return np.asarray(np.clip(raw, self.facts.low, self.facts.high), dtype=np.float32)


def save(model: Model, folder: Path) -> None:
    """Write `model.safetensors`, `classifier.json` and, last, the manifest."""
    from safetensors.numpy import save_file

    with whole_directory(folder, {"kind": KIND}) as inner:
        tensors = {"weights": model.weights, "bias": np.array([model.bias], dtype=np.float64)}
        save_file(tensors, inner / "model.safetensors")
        write_json(inner / "classifier.json", model.facts.model_dump(mode="json"))


def load(folder: Path) -> Model:
    """The model of a folder that `save` wrote; InputError for any other or a damaged one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if check_directory(folder).get("kind") != KIND:
        raise InputError(f"{folder}: not a classifier; `smelt corpus classifier` makes one")
    try:
        facts = Facts.model_validate(read_json(folder / "classifier.json"))
        tensors = load_file(folder / "model.safetensors")
        weights, bias = tensors["weights"], float(tensors["bias"][0])
    except (ValidationError, SafetensorError, KeyError, IndexError) as error:
        raise InputError(f"{folder}: not a classifier that can be read ({_first(error)}); train it again") from None
    if weights.shape != (facts.shape.buckets,):
        raise InputError(f"{folder}: {weights.shape} weights for {facts.shape.buckets} buckets; train it again")
    return Model(facts, weights, bias)


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
