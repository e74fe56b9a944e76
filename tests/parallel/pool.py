"""Worker processes that tests run functions in, as the ranks of a process group on gloo.

Starting a process costs seconds (it imports torch), so the workers live as long as the test session.
"""

import importlib
import importlib.util
import inspect
import multiprocessing
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

SIZE = 4
GRACE = 5.0  # seconds that the other ranks have to end after one has failed
STUCK = timedelta(seconds=60)  # a collective that waits longer has lost its partners


class Pool:
    """`pool(n, function, *args)` runs `function(*args)` on `n` ranks at once and returns their results in order.

    Each call has a process group of its own, already initialised, and the environment of torchrun. `function` is a
    function at the top of any file, or "package.module:function". Arguments and results travel pickled. When ranks
    fail, the first failure is raised with its traceback, and the workers are started again.
    """

    def __init__(self) -> None:
        from torch.distributed import TCPStore

        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._workers: list[tuple[Any, Connection]] = []
        self._calls = 0

    def __call__(self, n: int, function: str | Callable[..., Any], *args: Any, timeout: float = 300.0) -> list[Any]:
        self._start()
        self._calls += 1
        for rank, (_, pipe) in enumerate(self._workers[:n]):
            pipe.send_bytes(pickle.dumps((self._calls, rank, n, _place(function), args)))
        results, failures = self._gather(n, timeout)
        if failures:
            self.close()
            rank, text = failures[0]
            raise RuntimeError(f"rank {rank} of {n} failed:\n{text}")
        return [results[rank] for rank in range(n)]

    def close(self) -> None:
        """End the workers."""
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        self._workers = []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        while len(self._workers) < SIZE:
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._store.port, list(sys.path)), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, pipe))

    def _gather(self, n: int, timeout: float) -> tuple[dict[int, Any], list[tuple[int, str]]]:
        waiting = {pipe: rank for rank, (_, pipe) in enumerate(self._workers[:n])}
        results: dict[int, Any] = {}
        failures: list[tuple[int, str]] = []
        end = time.monotonic() + timeout
        while waiting:
            ready = wait(list(waiting), max(0.0, end - time.monotonic()))
            if not ready:
                failures += [(rank, f"no result within {timeout:.0f} s") for rank in waiting.values()]
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = waiting.pop(pipe)
                try:
                    ok, value = pickle.loads(pipe.recv_bytes())
                except (EOFError, ConnectionError):
                    ok, value = False, "the process died"
                if ok:
                    results[rank] = value
                else:
                    failures.append((rank, value))
                    end = min(end, time.monotonic() + GRACE)
        return results, failures


def _place(function: str | Callable[..., Any]) -> tuple[str, str]:
    """Where a worker finds a function: module or file, and name."""
    if isinstance(function, str):
        module, _, name = function.partition(":")
        return module, name
    return str(Path(inspect.getfile(function)).resolve()), function.__qualname__


def _serve(pipe: Connection, port: int, path: list[str]) -> None:
    """A worker's life: functions in, results out."""
    sys.path[:] = path
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    while True:
        try:
            call, rank, ranks, place, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks))
        torch.manual_seed(0)
        try:
            prefixed = dist.PrefixStore(f"call{call}", store)
            dist.init_process_group("gloo", store=prefixed, rank=rank, world_size=ranks, timeout=STUCK)
            module, name = place
            answer = pickle.dumps((True, getattr(_module(module), name)(*args)))
            dist.barrier()  # or a rank that is done would hang up on one that still reads from it
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        pipe.send_bytes(answer)
        if dist.is_initialized():
            dist.destroy_process_group()
        _forget_meshes()


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    known = next((each for each in list(sys.modules.values()) if getattr(each, "__file__", None) == place), None)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(f"worker_{Path(place).stem}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _forget_meshes() -> None:
    """DTensor remembers how operators shard by meshes, whose groups end with each call."""
    if "torch.distributed.tensor" in sys.modules:
        from torch.distributed.tensor.debug import _clear_sharding_prop_cache

        _clear_sharding_prop_cache()
