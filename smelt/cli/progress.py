"""Progress on a terminal: a live bar where someone watches, a line now and then where nobody does."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from smelt.cli.common import say, speaks
from smelt.lifecycle.artifacts import ensure
from smelt.train.loop import Hook

LINE_SECONDS = 20.0


def announced(name: str, path: Path, build: Callable[[Path], object]) -> Path:
    """Build an artifact unless it is there, and say so."""
    say(f"{name}: {'unchanged, ' + str(path) if path.exists() else 'working'}")
    return ensure(name, path, build)


class CorpusProgress:
    """Documents that each stage of building a corpus has done so far, on stderr."""

    def __init__(self) -> None:
        live = sys.stderr.isatty() and speaks()
        columns = (TextColumn("[bold]{task.description}"), TextColumn("{task.completed:,.0f} documents"))
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not live)
        self._live, self._last = live, time.monotonic()
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "CorpusProgress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, stage: str, documents: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=None)
        self._bar.update(self._tasks[stage], completed=documents)
        if not self._live and time.monotonic() - self._last > LINE_SECONDS:
            self._last = time.monotonic()
            say(f"  {stage} {documents:,} documents")


class TrainingProgress(Hook):
    """A hook of the training loop: step, loss, tokens a second and the time left, on stderr, until the block that it
    is entered with ends."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and speaks()
        self._bar: Progress | None = None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def started(self, training: Any) -> None:
        if self._live:
            self._bar = Progress(
                TextColumn("[bold]{task.fields[stage]}"),
                BarColumn(),
                TextColumn("step {task.completed:,.0f}/{task.total:,.0f}  {task.fields[facts]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                "", total=training.plan.total_steps, completed=training.at.step, stage="start", facts=""
            )
            self._bar.start()

    def stepped(self, training: Any, row: dict[str, Any] | None) -> None:
        if row is None:
            return
        facts = f"loss {row['loss']:.3f}  lr {row['lr']:.2g}  {row['tokens_per_second']:,.0f} tok/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=training.at.step, stage=row["stage"], facts=facts)
        elif time.monotonic() - self._last > LINE_SECONDS or training.at.step == training.plan.total_steps:
            self._last = time.monotonic()
            say(f"  {row['stage']} step {row['step']}/{training.plan.total_steps}  {facts}")

    def finished(self, training: Any, done: bool) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
