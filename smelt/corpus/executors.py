"""Does tasks, here or elsewhere, and again those whose process died; each is done once its marks are there."""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from smelt.corpus.process import Died, Worker
from smelt.corpus.stages.tasks import Task
from smelt.errors import InputError
from smelt.recipe.sections.executor import AnyExecutor, Local

ATTEMPTS = 3
Hear = Callable[[Task, int, bool], None]
"""Is told of a task, how many of its documents are done, and whether it is."""


def perform(tasks: Sequence[Task], executor: AnyExecutor, scratch: Path, hear: Hear) -> None:
    """Do the tasks that are not done yet, in any order; `scratch` is a folder for logs, which all machines see.

    InputError for a user's mistake, and for a task whose process died `ATTEMPTS` times.
    """
    missing = [task for task in tasks if not task.done]
    if not missing:
        return
    if executor.kind == "local":
        count = min(_workers(executor), len(missing))
        if count == 1:
            for task in missing:
                _here(task, hear)
        else:
            _Pool(missing, hear).run(count)
        return
    from smelt.corpus.cluster import perform_on_ray, perform_on_slurm

    for _ in range(ATTEMPTS):
        if executor.kind == "ray":
            perform_on_ray(missing, executor, scratch, hear)
        else:
            perform_on_slurm(missing, executor, scratch, hear)
        missing = [task for task in missing if not task.done]
        if not missing:
            return
    raise InputError(f"{_named(missing[0])}: did not finish in {ATTEMPTS} attempts; see the logs under {scratch}")


def _workers(executor: Local) -> int:
    if executor.workers != "auto":
        return executor.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(task: Task, hear: Hear) -> None:
    last = 0

    def heard(documents: int) -> None:
        nonlocal last
        last = documents
        hear(task, documents, False)

    task.perform(heard)
    hear(task, last, True)


def _named(task: Task) -> str:
    return f"corpus.sources.{task.source}: {task.kind}"


class _Pool:
    """Processes of this machine, a thread of this one beside each."""

    def __init__(self, tasks: Sequence[Task], hear: Hear) -> None:
        self._hear = hear
        self._waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in tasks:
            self._waiting.put(task)
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._failure: BaseException | None = None

    def run(self, count: int) -> None:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:  # the user's interrupt
            self._fail(error)
            raise
        finally:
            for worker in self._workers:
                worker.end()
        if self._failure:
            raise self._failure

    def _work(self) -> None:
        worker = None
        try:
            while self._failure is None:
                task = self._waiting.get_nowait()
                worker = self._until_done(task, worker)
        except queue.Empty:
            pass
        except BaseException as error:
            self._fail(error)

    def _until_done(self, task: Task, worker: Worker | None) -> Worker:
        """Do a task in a worker, and in a new one where that died; returns the one that lives."""
        last = 0

        def heard(documents: int) -> None:
            nonlocal last
            last = documents
            with self._lock:
                self._hear(task, documents, False)

        for _ in range(ATTEMPTS):
            worker = worker or self._started()
            try:
                worker.perform(task, heard)
            except Died as death:
                worker.end()
                worker, died = None, death
                if self._failure is not None:
                    break
            else:
                with self._lock:
                    self._hear(task, last, True)
                return worker
        raise InputError(
            f"{_named(task)}: its process died {ATTEMPTS} times ({died}); if memory ran out, lower "
            "corpus.executor.workers"
        )

    def _started(self) -> Worker:
        worker = Worker()
        with self._lock:
            self._workers.add(worker)
        return worker

    def _fail(self, error: BaseException) -> None:
        """Keep the first failure, and stop what the others do."""
        with self._lock:
            if self._failure is None:
                self._failure = error
            for worker in self._workers:
                worker.kill()
