"""Runs of several processes: the losses of one, one file of metrics, exact resume, on any layout, and clean stops."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import reference
import torch

from smelt.dataset.shards import open_sources
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.marathon import fitting
from smelt.marathon.evaluate import CheckpointEvaluation, evaluation_path
from smelt.marathon.run import train_run
from smelt.parallel.world import World, start
from smelt.recipe.layout import check_layout
from smelt.recipe.load import load_recipe
from smelt.train.checkpoints import Progress, checkpoint_path, checkpoints
from smelt.train.loop import Hook, Training
from smelt.train.precision import resolve_device
from smelt.train.records import rows
from smelt.train.together import Together

SHORT = ("train.stages.0.steps=5", "train.stages.1.steps=5", "train.checkpoints={every_steps: 4, keep: 9}")


class StopOnOneRank(Hook):
    """Asks the second rank alone to stop at a step."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        if training.at.step == self.step and training.engine.world.rank == self.rank:
            training.stop.asked.set()


def train(
    project: Path, changes: tuple[str, ...], resume: bool = False, stop: int = 0, hooks: Sequence[Hook] = ()
) -> int:
    """Train the tiny recipe on as many ranks as call this; the steps done."""
    recipe = load_recipe(project / "tiny.yaml", [*SHORT, *changes])
    world = World.of_environment(resolve_device(recipe.infra))
    start(world, check_layout(recipe, world.ranks))
    ready = prepare(recipe, project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    hooks = [StopOnOneRank(stop, world.ranks - 1)] if stop else hooks
    run = project / "runs" / recipe.name
    return train_run(recipe, run, ready.tokenizer, sources, resume=resume, hooks=hooks, world=world).step


def losses(run: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(run / "metrics.jsonl")}


def test_two_ranks_have_the_losses_of_one_and_write_one_record(workshop: Any, pool: Any) -> None:
    """INFRA-05: data parallel by default, through the whole run; every source's loss is that of all ranks."""
    train(workshop.project, ("name=alone",))
    assert pool(2, train, workshop.project, ("name=two-ranks",)) == [10, 10]
    alone, both = (list(rows(workshop.project / "runs" / name / "metrics.jsonl")) for name in ("alone", "two-ranks"))
    assert [row["step"] for row in both] == [row["step"] for row in alone] == list(range(1, 11))
    for one, two in zip(alone, both, strict=True):
        for key in ("loss", "loss_docs", "loss_math", "grad_norm", "log_z_abs"):
            assert two[key] == pytest.approx(one[key], rel=1e-4)
        assert two["tokens"] == one["tokens"] and two["lr"] == one["lr"]


def test_stopped_on_one_rank_all_save_and_resume_bitwise_or_on_another_layout(workshop: Any, pool: Any) -> None:
    """MARA-15: the same layout goes on bit for bit, another one within rounding, with the same batches."""
    runs = workshop.project / "runs"
    pool(2, train, workshop.project, ("name=straight-two",))
    stopped = pool(2, train, workshop.project, ("name=stopped",), False, 6)
    assert len(set(stopped)) == 1 and 6 <= stopped[0] < 9
    assert [path.name for path in checkpoints(runs / "stopped")][-1] == checkpoint_path(
        runs / "stopped", stopped[0]
    ).name
    shutil.copytree(runs / "stopped", runs / "put aside")
    assert pool(2, train, workshop.project, ("name=stopped",), True) == [10, 10]
    assert losses(runs / "stopped") == losses(runs / "straight-two")
    (runs / "stopped").rename(runs / "resumed by two")
    (runs / "put aside").rename(runs / "stopped")
    train(workshop.project, ("name=stopped",), resume=True)
    assert losses(runs / "stopped") == pytest.approx(losses(runs / "straight-two"), rel=1e-4)
    assert [row["kind"] for row in rows(runs / "stopped" / "events.jsonl")][-1] == "done"


class StaysLong(Hook):
    """Keeps the first rank, when training is over, until the other one has left."""

    def __init__(self, left: Path) -> None:
        self.left, self.patience = left, 0

    def finished(self, training: Training, done: bool) -> None:
        self.patience = 60 if training.engine.world.is_first else 0

    def closed(self) -> None:
        end = time.monotonic() + self.patience
        while self.patience and not self.left.exists():
            assert time.monotonic() < end, "the other rank waits too"
            time.sleep(0.05)


def train_and_leave(project: Path, left: Path) -> None:
    train(project, ("name=evaluated-long",), hooks=[StaysLong(left)])
    if os.environ["RANK"] == "1":
        left.touch()


def test_no_rank_waits_while_the_first_one_uploads_and_evaluates(workshop: Any, pool: Any, tmp_path: Path) -> None:
    pool(2, train_and_leave, workshop.project, tmp_path / "left")


@dataclass
class Saver:
    """Which checkpoints are held."""

    held: list[Path] = field(default_factory=list)

    def hold(self, path: Path) -> None:
        self.held.append(path)

    def release(self, path: Path) -> None:
        self.held.remove(path)


def evaluated(run: Path, at: int, command: Any) -> Saver:
    """Have what is due in a run that goes on at a step measured by a command."""
    engine = SimpleNamespace(world=World.single(torch.device("cpu")))
    training: Any = SimpleNamespace(run=run, at=Progress(step=at), engine=engine, saver=Saver())
    measure: Any = SimpleNamespace(due=lambda step: step % 4 == 0)
    hook = CheckpointEvaluation(measure, command)
    hook.started(training)
    hook.closed()
    return training.saver


def saved(run: Path, *steps: int) -> None:
    for step in steps:
        checkpoint_path(run, step).mkdir(parents=True)
        (checkpoint_path(run, step) / "manifest.json").write_text("{}")


def test_evaluations_that_a_crash_left_waiting_are_made_up_for(tmp_path: Path) -> None:
    """Of every checkpoint that is here, is due and lies on the way; not of one that was measured."""
    saved(tmp_path, 4, 6, 8, 12, 16)
    evaluation_path(tmp_path, 8).parent.mkdir()
    evaluation_path(tmp_path, 8).write_text("{}")
    saver = evaluated(tmp_path, 12, lambda path: ["touch", str(path / "measured")])
    assert [path.parent.name[-2:] for path in sorted(tmp_path.rglob("measured"))] == ["04", "12"]
    assert saver.held == []


def test_an_evaluation_that_fails_in_any_way_does_not_end_the_others(tmp_path: Path) -> None:
    saved(tmp_path, 4, 8, 12)
    (tmp_path / "events.jsonl").mkdir()  # where nothing can be written
    commands = [["bash", "-c", r"printf '\xff' >&2; exit 1"], [str(tmp_path / "no such program")], ["true"]]
    run: list[Path] = []

    def command(path: Path) -> list[str]:
        run.append(path)
        return commands[len(set(run)) - 1]

    evaluated(tmp_path, 12, command)
    assert [path.name[-2:] for path in run] == ["04", "04", "08", "08", "12"]


def fits_one_window_only() -> bool:
    """Measure in a layout where a backward pass of two windows runs out of memory; whether gradients are right then."""
    engine, world = reference.engine_of({"zero": 2}, reference.DENSE, torch.float64)

    def out_of_memory(gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("no memory")

    def watch(layer: Any, arguments: Any, output: Any) -> None:
        if len(output[0]) > 1:
            output[0].register_hook(out_of_memory)

    engine.model.layers[1].register_forward_hook(watch)
    recipe = SimpleNamespace(section=lambda name: SimpleNamespace(sequence=8))
    training: Any = SimpleNamespace(engine=engine, recipe=recipe, ranks=Together(world))
    assert fitting.measured(training, 4) == 1
    tokens, starts, targets = (reference.own_rows(each, world) for each in reference.batch(0))
    engine.forward_backward(tokens, starts, targets, 1, 1.0 / (reference.batch(0)[2] >= 0).sum().double())
    engine.reduce_gradients()
    expected = reference.gradients_of_one_process(reference.DENSE)
    found = {name: reference.gathered(each.grad) for name, each in engine.named_parameters()}
    return all(torch.allclose(found[name], expected[name], rtol=1e-9, atol=1e-12) for name in expected)


def test_where_two_windows_do_not_fit_one_is_taken_and_nothing_is_left_of_the_try(
    pool: Any,
) -> None:
    """`infra.micro_batch: auto`: all ranks find it together, and their sharded parameters are whole again."""
    assert pool(2, fits_one_window_only) == [True, True]


def test_where_two_windows_fit_some_processes_only_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SimpleNamespace(world=World.single(torch.device("cpu")))
    training: Any = SimpleNamespace(engine=engine, ranks=SimpleNamespace(gather=lambda peak: [peak, 0]))
    monkeypatch.setattr(fitting, "_peak", lambda training, size, rows: size)
    with pytest.raises(InputError, match=r"^infra\.micro_batch: 'auto' has tried 2 windows .* set it to 1"):
        fitting.measured(training, 4)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [1, 2])
def test_killed_under_torchrun_every_later_loss_is_bitwise_the_same(workshop: Any, victims: int) -> None:
    """MARA-15: kill -9 of one rank or of all; torchrun ends the others, and `--resume` goes on."""
    runs, name = workshop.project / "runs", f"many-killed-{victims}"
    if not (runs / "never-killed").exists():
        assert torchrun(workshop, "never-killed").wait() == 0
    job = torchrun(workshop, name)
    while job.poll() is None and len(list(rows(runs / name / "metrics.jsonl"))) < 6:
        time.sleep(0.01)
    for rank in ranks_of(job.pid)[:victims]:
        os.kill(rank, signal.SIGKILL)
    assert job.wait() != 0
    assert torchrun(workshop, name, "--resume").wait() == 0, (workshop.project / f"{name}.log").read_text()
    assert losses(runs / name) == losses(runs / "never-killed")
    assert len(losses(runs / name)) == 30


def torchrun(workshop: Any, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    long = ("train.stages.0.steps=15", "train.stages.1.steps=15", "evals.every_steps=10", "evals.tasks=[]")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "smelt", "train", "tiny.yaml", f"name={name}", *long, *arguments]
    with (workshop.project / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=workshop.project, stdout=log, stderr=log)


def ranks_of(agent: int) -> list[int]:
    """The processes that torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]
