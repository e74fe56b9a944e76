"""Tasks on a Slurm or Ray cluster, by datatrove's executors; each in a process of its own, so that it dies alone."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smelt.corpus.stages.folder import write_rows
from smelt.corpus.stages.tasks import Task
from smelt.errors import InputError
from smelt.recipe.sections.executor import Ray, SlurmArray

if TYPE_CHECKING:
    from smelt.corpus.executors import Hear

_POLL_SECONDS = 2.0


def perform_on_ray(tasks: Sequence[Task], executor: Ray, scratch: Path, hear: "Hear") -> None:
    """Do tasks on the Ray cluster at hand; those that fail there are left undone."""
    ray = _library("ray")
    steps = _library("smelt.corpus.step")
    from datatrove.executor.ray import RayPipelineExecutor

    if not ray.is_initialized():
        modules = os.pathsep.join(each for each in sys.path if each)
        ray.init(log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": modules}})
    folder = _scratch(scratch, tasks)
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    quiet = steps.Quiet()
    with quiet:
        RayPipelineExecutor(
            [steps.Perform(str(folder))],
            tasks=len(tasks),
            workers=workers,
            mem_per_cpu_gb=executor.memory_gb,
            logging_dir=str(folder / "datatrove"),
        ).run()
    _settled(tasks, folder, hear)


def perform_on_slurm(tasks: Sequence[Task], executor: SlurmArray, scratch: Path, hear: "Hear") -> None:
    """Do tasks as one job array, and wait for it; those that fail there are left undone."""
    if shutil.which("sbatch") is None:
        raise InputError("corpus.executor: there is no sbatch here; start this on a login node, or use kind local")
    steps = _library("smelt.corpus.step")
    folder = _scratch(scratch, tasks)
    with steps.Quiet():
        array = steps.array(executor, folder, len(tasks))
        try:
            array.run()
        except subprocess.CalledProcessError as error:
            raise InputError(
                f"corpus.executor: sbatch refused the job (exit code {error.returncode}); check partition and options"
            ) from None
    heard: set[int] = set()
    while _queued(array.job_id):
        time.sleep(_POLL_SECONDS)
        for number, task in enumerate(tasks):
            if number not in heard and task.done:
                heard.add(number)
                hear(task, _documents(task), True)
    _settled([task for number, task in enumerate(tasks) if number not in heard], folder, hear)


def _settled(tasks: Sequence[Task], folder: Path, hear: "Hear") -> None:
    """Tell of what is done; a user's mistake that a task met is raised here."""
    for error in _errors(folder):
        raise InputError(error)
    for task in tasks:
        if task.done:
            hear(task, _documents(task), True)


def _errors(folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob("error-*.json")):
        yield json.loads(file.read_text(encoding="utf-8"))


def _documents(task: Task) -> int:
    """How many documents a task that is done says it had."""
    counted = json.loads(Path(task.marks[0]).read_text(encoding="utf-8"))
    return int(counted.get("documents") or counted.get("read", {}).get("documents", 0))


def _queued(job: Any) -> bool:
    """Whether a task of a job waits or runs."""
    result = subprocess.run(["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True)
    if result.returncode:  # the job is long over, or nobody answers, and then it is asked again
        return "Invalid job id" not in result.stderr
    return bool(result.stdout.strip())


def _scratch(scratch: Path, tasks: Sequence[Task]) -> Path:
    """A new folder with the list of tasks."""
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=scratch.absolute(), prefix=f"{tasks[0].kind.replace(' ', '-')}-"))
    folder.chmod(0o755)
    write_rows(folder / "tasks.jsonl", (task.json() for task in tasks))
    return folder


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"corpus.executor: needs {error.name}, which is not installed; run: pip install 'smelt[cluster]'"
        ) from None
