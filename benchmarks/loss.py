"""The loss head, forward and backward, against PyTorch's: time, and peak memory beyond the inputs.

Vocabulary 128,256, 4096 tokens, hidden 576, bfloat16 states, float32 weight cast to bfloat16, 2 threads. Each case runs
in a process of its own, in turns: once to measure memory, once for the time.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import main, row
from torch import Tensor

from smelt.model.loss import token_loss

VOCAB, TOKENS, HIDDEN, THREADS = 128_256, 4096, 576, 2
LESS_MEMORY, NO_SLOWER = 1 / 0.12, 1 / 1.1  # at most 12 % of the plain path's extra memory, at most 1.1 times its time


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight.to(hidden.dtype)).float(), targets)


def fused(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.linear_cross_entropy(hidden, weight.to(hidden.dtype), targets)


def ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return token_loss(hidden[None], weight, targets[None]).mean()


CASES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ours": ours,
    "linear + cross_entropy": plain,
    "linear_cross_entropy": fused,
}


def measured(case: str) -> tuple[float, float, float]:
    """Seconds, peak GiB beyond the inputs, and the loss, on this process's CPU."""
    torch.set_num_threads(THREADS)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=draw).bfloat16().requires_grad_()
    weight = (0.02 * torch.randn(VOCAB, HIDDEN, generator=draw)).requires_grad_()
    targets = torch.randint(0, VOCAB, (TOKENS,), generator=draw)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts afresh
    loss = CASES[case](hidden, weight, targets)
    loss.backward()
    extra = _memory("VmHWM") - before
    hidden.grad = weight.grad = None
    start = time.perf_counter()
    CASES[case](hidden, weight, targets).backward()
    return time.perf_counter() - start, extra, loss.item()


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def measure(quick: bool) -> list[dict[str, Any]]:
    results: dict[str, list[tuple[float, float, float]]] = {case: [] for case in CASES}
    for _ in range(1 if quick else 5):
        for case in CASES:
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                results[case].append(alone.apply(measured, (case,)))
            print(case, results[case][-1], flush=True)
    losses = [each[2] for runs in results.values() for each in runs]
    assert max(losses) - min(losses) < 0.2, losses  # linear_cross_entropy returns it in bfloat16
    seconds, memory = (
        {case: statistics.median(run[i] for run in runs) for case, runs in results.items()} for i in (0, 1)
    )
    rows = []
    for peer in list(CASES)[1:]:
        for what, unit, figures, goal in (
            ("time", "s", seconds, NO_SLOWER),
            ("extra memory", "GiB", memory, LESS_MEMORY),
        ):
            goal = goal if peer == "linear + cross_entropy" else 1.0
            ratio = figures[peer] / figures["ours"]
            rows.append(row(f"loss head, {what}", unit, figures["ours"], {peer: figures[peer]}, ratio, goal))
    return rows


if __name__ == "__main__":
    main(measure)
