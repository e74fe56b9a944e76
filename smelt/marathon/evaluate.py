"""Evaluation as a hook of the loop: validation in bits per byte and tasks, before, along and after training."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smelt.dataset.shards import Shards
from smelt.evals.bigram import Bigram, fit
from smelt.evals.run import evaluate
from smelt.evals.validation import bits_per_byte, validation_documents
from smelt.files import write_json
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.train.loop import Training
from smelt.train.records import event

BIGRAM_TOKENS = 50_000_000  # training tokens of a source that its bigram baseline is fitted on, at most


class Evaluation:
    """Writes `evals/step-NNNNNNNN.json` at step 0, every `evals.every_steps` steps and at the end, once each."""

    def __init__(self, recipe: Recipe, training: Mapping[str, Shards], validation: Mapping[str, Shards]) -> None:
        self._recipe = recipe
        self._training = training
        self._validation = validation
        self._bigrams: dict[str, Bigram] = {}

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
        train, limit = training.train, self._recipe.evals.validation_bytes
        found = {}
        for source, shards in self._validation.items():
            found[source] = {
                **bits_per_byte(training.model, training.tokenizer, shards, train.sequence, limit),
                "bigram_bits_per_byte": self._bigram_bits(source, shards, training.tokenizer, limit),
            }
        return found

    def _bigram_bits(self, source: str, shards: Shards, tokenizer: Tokenizer, limit: int) -> float:
        if source not in self._bigrams:
            stream = self._training[source].read(0, min(self._training[source].tokens, BIGRAM_TOKENS))
            self._bigrams[source] = fit(stream, tokenizer.eos, len(tokenizer))
        documents, size = validation_documents(shards, limit)
        return self._bigrams[source].bits(documents) / size


def evaluation_path(run: Path, step: int) -> Path:
    """`RUN/evals/step-00001000.json`."""
    return run / "evals" / f"step-{step:08d}.json"
