"""Lets a training loop of any make run some steps at a time, when the benchmark that started its process says so.

The loop's process reads a number of steps from standard input, and answers with the seconds they took. It needs nothing
but Python, so that a peer in an environment of its own can use it.
"""

import os
import sys
import time


class Gate:
    """Call `step` after each step: it waits, once the steps that were asked for are done, for the next number."""

    def __init__(self) -> None:
        # What the loop itself prints must not be taken for answers.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._left = 0
        self._start = 0.0

    def open(self) -> None:
        """Wait for the first number; to be called before the first step."""
        self._left = int(sys.stdin.readline() or self._end())
        self._start = time.perf_counter()

    def step(self) -> None:
        """A step is done."""
        self._left -= 1
        if self._left == 0:
            print(time.perf_counter() - self._start, file=self._answers, flush=True)
            self.open()

    def _end(self) -> int:
        os._exit(0)
