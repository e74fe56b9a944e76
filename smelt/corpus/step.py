"""Our tasks as a step of datatrove's pipelines, which is what its executors carry to other machines."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from smelt.corpus.process import Worker
from smelt.corpus.stages.folder import read_rows
from smelt.corpus.stages.tasks import Task
from smelt.errors import InputError
from smelt.files import write_text
from smelt.recipe.sections.executor import SlurmArray


class Perform(PipelineStep):
    """Does the task of its rank, of those listed in `folder`, in a process of its own.

    A user's mistake is left in the folder for the one that waits, and ends the rank.
    """

    name = "smelt"
    type = "corpus"

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.modules = tuple(each for each in sys.path if each)
        self.cwd = os.getcwd()

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        task = Task(**read_rows(Path(self.folder) / "tasks.jsonl")[rank])
        if not task.done:
            os.chdir(self.cwd)
            worker = Worker(self.modules)
            try:
                worker.perform(task)
            except InputError as error:
                write_text(Path(self.folder) / f"error-{rank:05d}.json", json.dumps(str(error)))
                raise
            finally:
                worker.end()
        yield from ()


class Array(SlurmPipelineExecutor):
    """A job array without the job that would merge datatrove's own counts, as ours are in our marks."""

    def launch_merge_stats(self) -> None:
        """Do nothing."""


def array(executor: SlurmArray, folder: Path, tasks: int) -> Array:
    """The job array of the tasks listed in `folder`."""
    modules = os.pathsep.join(each for each in sys.path if each)
    return Array(
        [Perform(str(folder))],
        tasks=tasks,
        time=executor.time,
        partition=executor.partition,
        mem_per_cpu_gb=executor.memory_gb,
        workers=executor.workers or -1,
        job_name="smelt-corpus",
        qos="",
        sbatch_args=dict(executor.options),
        env_command=f"export PATH={quote(str(Path(sys.executable).parent))}:$PATH PYTHONPATH={quote(modules)}",
        logging_dir=str(folder / "datatrove"),
        slurm_logs_folder=str(folder / "slurm"),
        requeue=False,
    )


class Quiet:
    """Keeps datatrove's log off the terminal; it is in the logging folder as well."""

    def __enter__(self) -> None:
        logger.disable("datatrove")

    def __exit__(self, *error: object) -> None:
        logger.enable("datatrove")
