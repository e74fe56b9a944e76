"""Runs of several processes: the losses of one, one file of metrics, exact resume, on any layout, and clean stops."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smelt.dataset.shards import open_sources
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import train_run
from smelt.parallel.world import World, start
from smelt.recipe.layout import check_layout
from smelt.recipe.load import load_recipe
from smelt.train.checkpoints import checkpoint_path, checkpoints
from smelt.train.loop import Hook, Training
from smelt.train.precision import resolve_device
from smelt.train.records import rows

SHORT = ("train.stages.0.steps=5", "train.stages.1.steps=5", "train.checkpoints={every_steps: 4, keep: 9}")


class StopOnOneRank(Hook):
    """Asks the second rank alone to stop at a step."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        if training.at.step == self.step and training.engine.world.rank == self.rank:
            training.stop.asked.set()


def train(project: Path, changes: tuple[str, ...], resume: bool = False, stop: int = 0) -> int:
    """Train the tiny recipe on as many ranks as call this; the steps done."""
    recipe = load_recipe(project / "tiny.yaml", [*SHORT, *changes])
    world = World.of_environment(resolve_device(recipe.infra))
    start(world, check_layout(recipe, world.ranks))
    ready = prepare(recipe, project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    hooks = [StopOnOneRank(stop, world.ranks - 1)] if stop else []
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
    """MARA-15, issue 4: the same layout goes on bit for bit, another one within rounding, with the same batches."""
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


@pytest.mark.slow
@pytest.mark.parametrize("victims", [1, 2])
def test_killed_under_torchrun_every_later_loss_is_bitwise_the_same(workshop: Any, victims: int) -> None:
    """MARA-15: kill -9 of one rank or of all; torchrun ends the others, and `--resume` goes on."""
    runs, name = workshop.project / "runs", f"many-killed-{victims}"
    assert torchrun(workshop, "never-killed").wait() == 0 if not (runs / "never-killed").exists() else True
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
