"""Evaluation as a hook of the loop: validation in bits per byte and tasks, before, along and after training.

A run of one process measures the model it trains. One of many has each checkpoint that is due measured by a process of
its own, while training goes on.
"""

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from smelt.dataset.shards import Shards
from smelt.errors import InputError
from smelt.evals.run import evaluate
from smelt.evals.validation import bigram_bits_per_byte, bits_per_byte, train_bigram
from smelt.files import write_json
from smelt.model.decoder import Decoder
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.train.checkpoints import checkpoints, step_of
from smelt.train.loop import Hook, Training
from smelt.train.records import event

ATTEMPTS = 2


class Measure:
    """Writes `evals/step-NNNNNNNN.json` of a model at a step."""

    def __init__(self, recipe: Recipe, training: Mapping[str, Shards], validation: Mapping[str, Shards]) -> None:
        self._recipe, self._plan = recipe, Plan(recipe)
        self._training, self._validation = training, validation
        self._bigram_bits: dict[str, float] = {}

    def due(self, step: int) -> bool:
        """Whether the model is measured after `step` steps."""
        return step in (0, self._plan.total_steps) or step % self._recipe.evals.every_steps == 0

    def __call__(self, run: Path, step: int, model: Decoder, tokenizer: Tokenizer) -> None:
        start = time.perf_counter()
        section = self._recipe.evals
        result = evaluate(model, tokenizer, section.tasks, section.items, self._recipe.seed, section.samples)
        scores = {
            "step": step,
            "tokens": self._plan.tokens_before(step),
            "model": "base",
            "validation": self._validate(model, tokenizer),
            **result,
            "seconds": round(time.perf_counter() - start, 3),
        }
        write_json(evaluation_path(run, step), scores)
        event(run, "evaluation", step=step, evaluation_seconds=scores["seconds"])

    def _validate(self, model: Decoder, tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
        limit = self._recipe.evals.validation_bytes
        sequence = self._recipe.section("train").sequence
        return {
            source: {
                **bits_per_byte(model, tokenizer, shards, sequence, limit),
                "bigram_bits_per_byte": self._baseline(source, tokenizer),
            }
            for source, shards in self._validation.items()
        }

    def _baseline(self, source: str, tokenizer: Tokenizer) -> float:
        if source not in self._bigram_bits:
            bigram = train_bigram(self._training[source], tokenizer)
            limit = self._recipe.evals.validation_bytes
            self._bigram_bits[source] = bigram_bits_per_byte(bigram, self._validation[source], limit)
        return self._bigram_bits[source]


class LiveEvaluation(Hook):
    """Measures the model in training, in a run of one process."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure

    def started(self, training: Training) -> None:
        if not evaluation_path(training.run, training.at.step).is_file():
            self.stepped(training, None)

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        if self._measure.due(training.at.step):
            self._measure(training.run, training.at.step, training.model, training.tokenizer)


class CheckpointEvaluation(Hook):
    """Has checkpoints measured one after the other by the process that `command(checkpoint)` starts."""

    def __init__(self, measure: Measure, command: Callable[[Path], Sequence[str]]) -> None:
        self._measure, self._command = measure, command
        self._waiting: queue.Queue[Path | None] = queue.Queue()
        self._worker: threading.Thread | None = None
        self._training: Training | None = None

    def started(self, training: Training) -> None:
        self._training = training
        if training.engine.world.is_first:
            self._worker = threading.Thread(target=self._work, name="evaluation", daemon=True)
            self._worker.start()
            for path in checkpoints(training.run):
                if step_of(path) <= training.at.step and not evaluation_path(training.run, step_of(path)).is_file():
                    self.saved(path)

    def wants_checkpoint(self, training: Training) -> bool:
        return self._measure.due(training.at.step)

    def saved(self, path: Path) -> None:
        assert self._training is not None
        if self._measure.due(step_of(path)):
            self._training.saver.hold(path)
            self._waiting.put(path)

    def closed(self) -> None:
        if self._worker is not None:
            self._waiting.put(None)
            self._worker.join()

    def _work(self) -> None:
        assert self._training is not None
        while (path := self._waiting.get()) is not None:
            try:
                self._attempt(self._training, path)
            finally:
                self._training.saver.release(path)

    def _attempt(self, training: Training, path: Path) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            reason = _failure(self._command(path))
            if reason is None:
                return
            with suppress(InputError, OSError):  # a disk that has no room for this line must not end the evaluations
                event(training.run, "evaluation_failed", step=step_of(path), attempt=attempt, reason=reason)


def _failure(command: Sequence[str]) -> str | None:
    """The last word of a process that failed, or why it could not be started; None if all went well."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        return str(error)
    return None if ran.returncode == 0 else (ran.stderr.strip().splitlines() or ["it ended without a word"])[-1]


def evaluation_path(run: Path, step: int) -> Path:
    """`RUN/evals/step-00001000.json`."""
    return run / "evals" / f"step-{step:08d}.json"
