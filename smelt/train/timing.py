"""Where a run's time goes, phase by phase, measured without making the host wait for the device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Timings:
    """Seconds spent in named phases since they were last read.

    On a CPU they are host times. On CUDA a phase is what its kernels took on the current stream, except those that
    the host alone spends (`on_host`), such as waiting for data.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str, on_host: bool = False) -> Iterator[None]:
        """Adds what happens inside to phase `name`."""
        if self._on_device and not on_host:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
        else:
            start = time.perf_counter()
            yield
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Adds `seconds` to phase `name`."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def read(self) -> dict[str, float]:
        """The sums, which then begin at 0 again; on CUDA to be called when the phases' kernels have ended."""
        for name, begin, end in self._events:
            end.synchronize()
            self.add(name, begin.elapsed_time(end) / 1000)
        seconds, self._seconds, self._events = self._seconds, {}, []
        return seconds
