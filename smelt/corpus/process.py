"""A worker process of `smelt.corpus.worker` from the side of the one that started it.

It is a fresh interpreter, so a script that starts one needs no `__main__` guard, and nothing travels but JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable

from smelt.corpus.stages.tasks import Task
from smelt.errors import InputError

_ONE_CORE = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "ARROW_NUM_THREADS")


class Died(Exception):
    """The process ended in the middle of a task. The message says how."""


class Worker:
    """One process, which does one task at a time."""

    def __init__(self, path: tuple[str, ...] | None = None) -> None:
        modules = [each for each in (sys.path if path is None else path) if each]
        environment = {**os.environ, **dict.fromkeys(_ONE_CORE, "1"), "PYTHONPATH": os.pathsep.join(modules)}
        command = [sys.executable, "-m", "smelt.corpus.worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, encoding="utf-8"
        )

    def perform(self, task: Task, heard: Callable[[int], None] = lambda documents: None) -> None:
        """Do a task there; raises what it raised there, and Died where the process is no more."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(task.json()) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Died(f"exit code {self._process.wait()}") from None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "documents" in answer:
                heard(answer["documents"])
            elif "error" in answer:
                raise InputError(answer["error"])
            elif "failure" in answer:
                raise RuntimeError(f"{task.kind} of corpus.sources.{task.source} failed:\n{answer['failure']}")
            else:
                return
        raise Died(f"exit code {self._process.wait()}")

    def kill(self) -> None:
        """Stop it, whatever it does; may be called while another thread waits for it."""
        self._process.kill()

    def end(self) -> None:
        """Stop it, and let go of it."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
