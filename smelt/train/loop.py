"""The one training loop: draws batches, steps, logs, saves, and offers hooks; leaves cleanly when asked to."""

import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from smelt.dataset.batches import BatchSource
from smelt.errors import InputError
from smelt.model.balance import metrics
from smelt.model.decoder import Decoder
from smelt.model.reconfigure import reconfigured
from smelt.optim.schedules import learning_rate
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.train import Train
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.train.checkpoints import Progress, prune, save_checkpoint
from smelt.train.records import append, event
from smelt.train.step import StepResult, train_step


@dataclass
class Training:
    """Everything one run holds while it goes on."""

    recipe: Recipe
    run: Path
    model: Decoder
    optimizer: torch.optim.Optimizer
    tokenizer: Tokenizer
    batches: BatchSource
    device: torch.device
    at: Progress
    sources: Sequence[str]
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def train(self) -> Train:
        """The recipe's `train` section."""
        section: Train = self.recipe.section("train")
        return section


class Hook(Protocol):
    """What the loop calls; every method may be left as it is."""

    def started(self, training: Training) -> None:
        """Before the first step of this life."""

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        """After each step; `row` is the metrics row when one was logged."""

    def finished(self, training: Training, done: bool) -> None:
        """When the loop ends: at the last step (`done`) or because it was asked to stop."""


def run_loop(training: Training, hooks: Sequence[Hook] = ()) -> bool:
    """Train from `training.at.step` to the last step; returns False if it was asked to stop before that."""
    train, at = training.train, training.at
    began = time.perf_counter()
    stage = -1
    with _leave_cleanly(training.stop):
        _follow(training)
        for hook in hooks:
            hook.started(training)
        waited = time.perf_counter()
        for batch in training.batches.prefetch(at.step, train.total_steps):
            fetched = time.perf_counter()
            if train.stage_at(at.step)[0] != stage:
                stage = train.stage_at(at.step)[0]
                _follow(training)
                event(training.run, "stage", step=at.step, stage=train.stages[stage].name)
            result = _step(training, batch)
            at.step, at.tokens = at.step + 1, at.tokens + batch.tokens.numel()
            row = None
            if at.step % train.log_every_steps == 0 or at.step in (1, train.total_steps):
                row = _row(training, result, stage, waited, fetched, began)
                append(training.run / "metrics.jsonl", row)
            for hook in hooks:
                hook.stepped(training, row)
            if _due(train, at.step) or training.stop.is_set():
                _save(training)
            if training.stop.is_set():
                break
            waited = time.perf_counter()
        done = at.step == train.total_steps
        for hook in hooks:
            hook.finished(training, done)
    return done


def _follow(training: Training) -> None:
    """Give the model what the stage of the next step sets."""
    config = training.recipe.model_at(training.train.stage_at(training.at.step)[0])
    if config != training.model.config:
        training.model = reconfigured(training.model, config)


def _step(training: Training, batch: Any) -> StepResult:
    train = training.train
    return train_step(
        training.model,
        training.optimizer,
        batch,
        lr=learning_rate(train, training.at.step),
        clip=train.clip,
        micro_batch=training.recipe.infra.micro_batch,
        sources=len(training.sources),
        device=training.device,
    )


def _row(
    training: Training, result: StepResult, stage: int, waited: float, fetched: float, began: float
) -> dict[str, Any]:
    """One line of `metrics.jsonl`: this step's exact means over valid tokens, and where its time went."""
    sums, counts = result.loss_sums.tolist(), result.token_counts.tolist()
    loss, now = sum(sums) / max(1.0, sum(counts)), time.perf_counter()
    if not loss < float("inf"):
        raise InputError(
            f"train: the loss became {loss} at step {training.at.step}; the checkpoints before it are whole: lower "
            "train.optimizer.lr, or look at the step with 'smelt data trace'"
        )
    tokens = training.train.batch_tokens
    return {
        "step": training.at.step,
        "tokens": training.at.tokens,
        "stage": training.train.stages[stage].name,
        "loss": loss,
        **{f"loss_{name}": sums[i] / counts[i] for i, name in enumerate(training.sources) if counts[i]},
        "grad_norm": result.grad_norm.item(),
        "lr": learning_rate(training.train, training.at.step - 1),
        **{name: mean.item() for name, mean in result.means.items()},
        **metrics(result.experts),
        "tokens_per_second": tokens / (now - waited),
        "step_seconds": now - waited,
        "data_seconds": fetched - waited,
        "forward_backward_seconds": result.forward_backward_seconds,
        "optimizer_seconds": result.optimizer_seconds,
        "memory_gib": peak_memory(training.device) / 2**30,
        "life": training.at.life,
        "seconds": now - began,
    }


def _due(train: Train, step: int) -> bool:
    ends = {train.stage_at(step - 1)[1] + train.steps_of(train.stage_at(step - 1)[0])}
    return step % train.checkpoints.every_steps == 0 or step in ends


def _save(training: Training) -> None:
    start = time.perf_counter()
    save_checkpoint(training.run, training.recipe, training.tokenizer, training.model, training.optimizer, training.at)
    prune(training.run, training.train.checkpoints.keep)
    seconds = round(time.perf_counter() - start, 3)
    consumed = training.batches.order.consumed(training.at.step)
    event(training.run, "checkpoint", step=training.at.step, checkpoint_seconds=seconds, consumed=consumed)


def peak_memory(device: torch.device) -> int:
    """Bytes: the device allocator's peak on CUDA, the process's peak resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _leave_cleanly(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask the loop to save and leave after the step at hand; a second Ctrl-C interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {
        number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
