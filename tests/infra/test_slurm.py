"""Real Slurm on this machine: a run goes on by itself after the time limit, a crash and a requeue."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import ask, cluster
from lives import LONG, TWO, agent, get_further, losses, turns, until, workers

from smelt.infra.job import Job
from smelt.infra.slurm import script

STEPS = ["train.stages.0.steps=800", *LONG]


def test_the_script_asks_for_what_the_recipe_says(workshop) -> None:
    wanted = [
        "infra={nodes: 4, gpus_per_node: 8, launch: {grace_seconds: 600, environment: {NCCL_DEBUG: WARN},"
        " setup: ['module load cuda'], teardown: ['sync'],"
        " slurm: {time: 1-12:00:00, partition: hopper, account: us, options: [--exclusive]}}}",
    ]
    job = Job(workshop.load("asked", *wanted), Path("/data/asked.yaml"), ("seed=1",), Path("/data"), Path("/data"))
    lines = script(job).splitlines()
    assert lines[0] == "#!/bin/bash"
    options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert options == {
        *["job-name=asked", "nodes=4", "ntasks-per-node=1", "gpus-per-node=8", "time=1-12:00:00", "partition=hopper"],
        *["account=us", "exclusive", "requeue", "open-mode=append", "signal=B:USR1@600", "chdir=/data"],
        "output=/data/runs/asked/launch/slurm-%j.log",
    }
    assert {"export NCCL_DEBUG=WARN", "module load cuda", "sync"} <= set(lines)
    (start,) = (line for line in lines if "torch.distributed.run" in line)
    assert "--nnodes=4 --nproc-per-node=8 --max-restarts=3 --shutdown-timeout=600" in start
    assert "train /data/asked.yaml seed=1 --project /data --resume" in start


def test_the_script_knows_the_newest_checkpoint_by_its_time(workshop, tmp_path: Path) -> None:
    """A run that was rewound saves lower steps than are there."""
    job = Job(workshop.load("rewound"), Path("rewound.yaml"), project=tmp_path)
    (newest,) = (line for line in script(job).splitlines() if line.startswith("newest()"))
    seen = []
    for step in ("00000900", "00000300"):
        manifest = job.run / "checkpoints" / f"step-{step}" / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
        seen.append(subprocess.run(["bash", "-c", f"{newest}\nnewest"], capture_output=True, text=True).stdout)
        time.sleep(0.02)
    assert all(seen) and seen[0] != seen[1]


@pytest.mark.skipif(not os.path.exists("/usr/bin/shellcheck"), reason="needs Debian's shellcheck")
def test_shellcheck_has_nothing_to_say_about_the_script(workshop) -> None:
    text = script(Job(workshop.load("checked", "infra.gpus_per_node=2"), Path("checked.yaml")))
    result = subprocess.run(["shellcheck", "--exclude=SC2317", "-"], input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_slurm_interrupts_ends_like_one_that_ran_through(workshop, tmp_path: Path, processes: int) -> None:
    """MARA-15 (X): warned before the time limit, crashed, requeued by hand: bitwise the losses of a straight run."""
    changes = [*STEPS, *(TWO if processes == 2 else [])]
    names = [f"straight-{processes}", f"interrupted-{processes}"]
    straight, run = (workshop.project / "runs" / name for name in names)
    with cluster(tmp_path) as slurm:
        job = launched(workshop, slurm, f"name={straight.name}", *changes)
        until(lambda: "COMPLETED" in state(slurm, job))
        job = launched(workshop, slurm, f"name={run.name}", *changes)
        get_further(run)
        ask(slurm, "scancel", "--batch", "--signal=USR1", job)  # as Slurm does shortly before the time limit
        start_again(slurm, job, 1)
        get_further(run)
        os.kill(workers(run.name)[-1], signal.SIGKILL)
        get_further(run)
        os.kill(agent(run.name), signal.SIGKILL)
        start_again(slurm, job, 2)
        get_further(run)
        ask(slurm, "scontrol", "requeue", job)
        start_again(slurm, job, 3)
        until(lambda: "COMPLETED" in state(slurm, job))
    assert losses(run) == losses(straight)
    assert turns(run) == [
        *["start", "stop", "resume"],  # the time limit
        *["resume", "resume"],  # a process killed, then the agent
        *["stop", "resume", "done"],  # requeued by hand
    ]
    log = (run / "launch" / f"slurm-{job}.log").read_text()
    assert "the time limit is near: saved, and queued again" in log and "crashed with exit code" in log


@pytest.mark.slow
def test_bad_input_ends_a_job_and_is_not_queued_again(workshop, tmp_path: Path) -> None:
    with cluster(tmp_path) as slurm:
        recipe = workshop.project / "vanishing.yaml"
        recipe.write_text(workshop.recipe.read_text())
        waits = ["infra.launch.setup=[mv vanishing.yaml vanished.yaml]"]
        job = launched(workshop, slurm, "name=vanishing", *waits, recipe="vanishing.yaml")
        until(lambda: "FAILED" in state(slurm, job))
        assert "ExitCode=2:0" in state(slurm, job) and "Restarts=0" in state(slurm, job)


def launched(workshop: Any, slurm: dict[str, str], *changes: str, recipe: str = "tiny.yaml") -> str:
    """The number of a job that `smelt launch slurm` submitted."""
    result = workshop.smelt("launch", "slurm", recipe, *changes, "--json", env={**slurm, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    return str(json.loads(result.stdout)["job"])


def state(slurm: dict[str, str], job: str) -> str:
    return ask(slurm, "scontrol", "show", "job", job)


def start_again(slurm: dict[str, str], job: str, restarts: int) -> None:
    """Wait until a job is queued for another life, and spare it the two minutes that Slurm makes it wait."""
    until(lambda: "JobState=PENDING" in state(slurm, job) and f"Restarts={restarts}" in state(slurm, job))
    time.sleep(3)  # a life may not start in the second in which the one before it was revoked
    ask(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")
    until(lambda: "JobState=RUNNING" in state(slurm, job))
