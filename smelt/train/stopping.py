"""Leaving cleanly: a signal asks for it, and all ranks do it after the same step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from smelt.parallel.world import World


class Stop:
    """Whether to stop: any rank may be `asked` to, at any time, and all have `agreed` to do so at the same step;
    `replan` asks for the same, so that the run goes on with an amended recipe.

    The answer at a step is what was asked one step earlier, so that nobody waits for the exchange.
    """

    def __init__(self, world: World) -> None:
        self.asked, self.replan = threading.Event(), threading.Event()
        self._group: Any = None
        self._exchange: Any = None
        self._flag = torch.zeros(1, dtype=torch.int32)
        if world.ranks > 1:
            import torch.distributed as dist

            self._group = dist.new_group(backend="gloo")

    def agreed(self) -> bool:
        """To be called once a step, on every rank."""
        if self._group is None:
            return self._wanted
        import torch.distributed as dist

        answer = self.settle()
        self._flag = torch.tensor([int(self._wanted)], dtype=torch.int32)
        self._exchange = dist.all_reduce(self._flag, dist.ReduceOp.MAX, self._group, async_op=True)
        return answer

    @property
    def _wanted(self) -> bool:
        return self.asked.is_set() or self.replan.is_set()

    def settle(self) -> bool:
        """Wait for the exchange under way; whether it says to stop."""
        if self._exchange is None:
            return False
        self._exchange.wait()
        self._exchange = None
        return bool(self._flag.item())


@contextmanager
def leave_cleanly(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask the loop to save and leave after the step at hand; a second Ctrl-C interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {
        number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
