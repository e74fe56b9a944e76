"""Evaluation as a hook of the loop: validation in bits per byte and tasks, before, along and after training."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smelt.dataset.shards import Shards
from smelt.evals.run import evaluate
from smelt.evals.validation import bigram_bits_per_byte, bits_per_byte, train_bigram
from smelt.files import write_json
from smelt.recipe.schema import Recipe
from smelt.train.loop import Training
from smelt.train.records import event


class Evaluation:
    """Writes `evals/step-NNNNNNNN.json` at step 0, every `evals.every_steps` steps and at the end, once each."""

    def __init__(self, recipe: Recipe, training: Mapping[str, Shards], validation: Mapping[str, Shards]) -> None:
        self._recipe = recipe
        self._training = training
        self._validation = validation
        self._bigram_bits: dict[str, float] = {}

    def started(self, training: Training) -> None:
        if training.at.step == 0:
            self._measure(training)

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        at_end = training.at.step == training.train.total_steps
        if at_end or training.at.step % self._recipe.evals.every_steps == 0:
            self._measure(training)

    def finished(self, training: Training, done: bool) -> None:
        """Nothing is left to do: the last step was measured when it was taken."""

    def _measure(self, training: Training) -> None:
        path = evaluation_path(training.run, training.at.step)
        if path.is_file():
            return
        start = time.perf_counter()
        section = self._recipe.evals
        result = evaluate(
            training.model, training.tokenizer, section.tasks, section.items, self._recipe.seed, section.samples
        )
        scores = {
            "step": training.at.step,
            "tokens": training.at.tokens,
            "model": "base",
            "validation": self._validate(training),
            **result,
            "seconds": round(time.perf_counter() - start, 3),
        }
        write_json(path, scores)
        event(training.run, "evaluation", step=training.at.step, evaluation_seconds=scores["seconds"])

    def _validate(self, training: Training) -> dict[str, dict[str, float]]:
        limit = self._recipe.evals.validation_bytes
        sequence = training.train.sequence
        return {
            source: {
                **bits_per_byte(training.model, training.tokenizer, shards, sequence, limit),
                "bigram_bits_per_byte": self._baseline(source, training),
            }
            for source, shards in self._validation.items()
        }

    def _baseline(self, source: str, training: Training) -> float:
        if source not in self._bigram_bits:
            bigram = train_bigram(self._training[source], training.tokenizer)
            limit = self._recipe.evals.validation_bytes
            self._bigram_bits[source] = bigram_bits_per_byte(bigram, self._validation[source], limit)
        return self._bigram_bits[source]


def evaluation_path(run: Path, step: int) -> Path:
    """`RUN/evals/step-00001000.json`."""
    return run / "evals" / f"step-{step:08d}.json"
