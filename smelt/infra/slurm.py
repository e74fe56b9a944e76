"""Slurm: a batch script that goes on by itself after the time limit, a crash or a requeue, and its submission."""

import shutil
import subprocess
from pathlib import Path

from smelt.errors import InputError
from smelt.infra.job import Job
from smelt.infra.templates import render
from smelt.infra.torchrun import torchrun


def script(job: Job) -> str:
    """The batch script."""
    meeting = '--rdzv-backend=c10d --rdzv-endpoint="$head:$port" --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"'
    return render("slurm.sh.jinja", job, torchrun=torchrun(job, meeting), options=_options(job))


def _options(job: Job) -> list[str]:
    section, infra = job.launch.slurm, job.recipe.infra
    wanted = {
        "job-name": job.recipe.name,
        "partition": section.partition,
        "account": section.account,
        "time": section.time,
        "nodes": infra.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": infra.gpus_per_node if job.gpus else None,
        "chdir": job.folder.absolute(),
        "output": job.scripts / "slurm-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{job.launch.grace_seconds}",
    }
    given = [f"--{name}={value}" for name, value in wanted.items() if value is not None]
    return [*given, "--requeue", *section.options]


def submit(script: Path) -> int:
    """Hand a script to Slurm; returns the number of its job."""
    if shutil.which("sbatch") is None:
        raise InputError(f"{script}: written, but there is no sbatch here; submit it on a login node: sbatch {script}")
    result = subprocess.run(["sbatch", "--parsable", script], capture_output=True, text=True)
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
        raise InputError(f"{script}: sbatch refused it ({reason}); see infra.launch.slurm")
    return int(result.stdout.split(";")[0])
