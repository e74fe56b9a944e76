"""The one training loop: draws batches, steps, logs, saves, and offers hooks; leaves cleanly when asked to."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smelt.dataset.batches import Batch, BatchSource
from smelt.model.decoder import Decoder, followed
from smelt.model.weights import Description
from smelt.optim.averaging import follow
from smelt.optim.optimizers import optimizer_tensors
from smelt.optim.schedules import learning_rate
from smelt.optim.skip import Skip
from smelt.parallel.engine import Engine
from smelt.recipe.plan import Plan, Segment
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.optimizer import ExponentialAverage
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.train import health
from smelt.train.checkpoints import Progress, Snapshot
from smelt.train.feed import on_device
from smelt.train.health import Health
from smelt.train.memory import naming_the_field, windows_at
from smelt.train.records import append, event
from smelt.train.rows import Rows
from smelt.train.saving import Saver
from smelt.train.step import StepResult, train_step
from smelt.train.stopping import Stop, leave_cleanly
from smelt.train.timing import Timings
from smelt.train.together import Together


@dataclass
class Training:
    """Everything one run holds on one rank while it goes on."""

    recipe: Recipe
    run: Path
    engine: Engine
    optimizer: torch.optim.Optimizer
    tokenizer: Tokenizer
    vocab: int
    dtype: torch.dtype
    batches: BatchSource
    saver: Saver
    at: Progress
    plan: Plan = field(init=False)
    skip: Skip | None = field(init=False)
    ranks: Together = field(init=False)
    stop: Stop = field(init=False)

    def __post_init__(self) -> None:
        world, section = self.engine.world, self.recipe.section("train").skip_step
        self.plan = Plan(self.recipe)
        self.skip = None if section is None else Skip(section, world.device)
        self.ranks, self.stop = Together(world), Stop(world)

    @property
    def model(self) -> Decoder:
        """The whole model, which only a run of one process holds."""
        [model] = self.engine.parts
        assert isinstance(model, Decoder) and self.ranks.ranks == 1
        return model

    @property
    def followed(self) -> tuple[str, ...]:
        """Names of what the model follows beside its loss, whichever rank does it."""
        return followed(self.engine.config)

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint holds beside the weights."""
        return {**optimizer_tensors(self.optimizer), **({} if self.skip is None else self.skip.tensors())}

    def snapshot(self) -> Snapshot:
        """What a checkpoint is made from."""
        described = Description(self.engine.config, self.vocab, self.dtype, {})
        parameters = {name: parameter.detach() for name, parameter in self.engine.named_parameters()}
        return Snapshot(self.recipe, self.tokenizer, self.at, described, parameters, self.state())


class Hook:
    """What the loop calls on every rank; by itself it does nothing."""

    def started(self, training: Training) -> None:
        """Before the first step of this life."""

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        """After each step; `row` is the metrics row when one was logged."""

    def wants_checkpoint(self, training: Training) -> bool:
        """Whether a checkpoint is to be saved at the step just taken; to be answered alike on every rank."""
        return False

    def saved(self, path: Path) -> None:
        """In the background, on the first rank, when the checkpoint at `path` is whole."""

    def finished(self, training: Training, done: bool) -> None:
        """When the loop ends: at the last step (`done`) or because it was asked to stop."""

    def closed(self) -> None:
        """When the last checkpoint is whole."""


def run_loop(training: Training, hooks: Sequence[Hook] = ()) -> bool:
    """Train from `training.at.step` to the last step; returns False if it was asked to stop before that."""
    return _Loop(training, hooks).run()


class _Loop:
    """One life of a run."""

    def __init__(self, training: Training, hooks: Sequence[Hook]) -> None:
        self.training, self.hooks = training, hooks
        self.device = training.engine.world.device
        self.timings, self.health = Timings(self.device), Health(self.device)
        self.rows = Rows(training, self.timings)
        self.segment: Segment | None = None

    def run(self) -> bool:
        training, at, last = self.training, self.training.at, self.training.plan.total_steps
        with leave_cleanly(training.stop.asked), closing(self._feed()) as feed:
            self._enter(training.plan.at(at.step))
            for hook in self.hooks:
                hook.started(training)
            if at.step == 0 and any(hook.wants_checkpoint(training) for hook in self.hooks):
                self._save()
            self.rows.restart()
            stopping = False
            while at.step < last and not stopping:
                with self.timings.phase("data", on_host=True):
                    batch = next(feed)
                self._enter(training.plan.at(at.step))
                result = self._step(batch)
                stopping = self._after(result)
            done = at.step == last
            training.stop.settle()
            for hook in self.hooks:
                hook.finished(training, done)
        return done

    def _feed(self) -> Generator[Batch, None, None]:
        training, world = self.training, self.training.engine.world
        batches = training.batches.prefetch(
            training.at.step, training.plan.total_steps, rank=world.data_rank, ranks=world.data_ranks
        )
        return on_device(batches, self.device)

    def _enter(self, segment: Segment) -> None:
        """Follow what changes with the segment of the next step."""
        before, self.segment = self.segment, segment
        if before is segment:
            return
        if segment.model is not None:
            self.training.engine.reconfigure(segment.model)
        if before is None or before.stage != segment.stage:
            self._event("stage", stage=segment.name)
        elif before.skip != segment.skip or before.train != segment.train:
            self._event("amendment", stage=segment.name, skip=segment.skip)
        elif before.mixture != segment.mixture:
            self._event("ramp", stage=segment.name, mixture=dict(segment.mixture))

    def _step(self, batch: Batch) -> StepResult:
        training, segment = self.training, self.segment
        assert segment is not None
        micro_batch: int = training.recipe.infra.micro_batch  # type: ignore[assignment]  # `auto` is resolved
        averaging = segment.train.averaging
        with naming_the_field(micro_batch):
            result = train_step(
                training.engine,
                training.optimizer,
                batch,
                lr=learning_rate(training.plan, training.at.step),
                clip=segment.train.clip,
                micro_batch=windows_at(micro_batch, segment.train.sequence, segment.sequence),
                sources=len(training.recipe.sources),
                skip=training.skip,
                before_update=training.saver.before_update,
                timings=self.timings,
            )
            if isinstance(averaging, ExponentialAverage):
                with self.timings.phase("optimizer"):
                    follow(training.optimizer, averaging.decay)
        return result

    def _after(self, result: StepResult) -> bool:
        """Count, log and save the step just taken; whether to stop."""
        training, at, segment = self.training, self.training.at, self.segment
        assert segment is not None
        at.step, at.tokens = at.step + 1, at.tokens + segment.batch_tokens
        if training.skip is None:
            self.health.note(at.step, result.loss_sums.sum(), result.grad_norm)
        self.rows.step(segment)
        row = self._log(segment, result) if self._logs(at.step) else None
        stopping = training.stop.agreed()
        start = time.perf_counter()
        if stopping or self._saves(at.step):
            self._save()
        for hook in self.hooks:
            hook.stepped(training, row)
        self.rows.aside(time.perf_counter() - start)
        return stopping

    def _logs(self, step: int) -> bool:
        every = self.training.recipe.section("train").log_every_steps
        return step % every == 0 or step in (1, self.training.plan.total_steps)

    def _saves(self, step: int) -> bool:
        every = self.training.recipe.section("train").checkpoints.every_steps
        due = step % every == 0 or self.training.plan.boundary(step)
        return due or any(hook.wants_checkpoint(self.training) for hook in self.hooks)

    def _log(self, segment: Segment, result: StepResult) -> dict[str, Any]:
        row = self.rows.row(segment, result)
        if not row["loss"] + row["grad_norm"] < float("inf"):
            self._check()
        if self.training.engine.world.is_first:
            append(self.training.run / "metrics.jsonl", row)
        return row

    def _save(self) -> None:
        """Save a checkpoint, unless the weights are spoilt."""
        self._check()
        training = self.training
        training.at.consumed = consumed = training.batches.order.consumed(training.at.step)
        self.timings.add("checkpoint", training.saver.save(training.snapshot(), consumed=consumed))

    def _check(self) -> None:
        """Raise LossLost if any step so far had a loss that is no number; every rank takes part."""
        world = self.training.engine.world
        health.check(self.training.ranks.gather((self.health.first, world.data_rank)))

    def _event(self, kind: str, **fields: Any) -> None:
        if self.training.engine.world.is_first:
            event(self.training.run, kind, step=self.training.at.step, **fields)
