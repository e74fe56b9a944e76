"""Batches on their way to the device, copied while the step before is still computed."""

from collections.abc import Generator, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from smelt.dataset.batches import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Generator[Batch, None, None]:
    """The same batches on `device`; on CUDA from pinned memory, on a stream of their own."""
    if device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(side):
            there = _moved(batch, device)
        torch.cuda.current_stream(device).wait_stream(side)
        for tensor in (there.tokens, there.targets, there.starts, there.sources):
            if tensor is not None:
                tensor.record_stream(torch.cuda.current_stream(device))
        yield there


def _moved(batch: Batch, device: torch.device) -> Batch:
    def move(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True)

    starts = None if batch.starts is None else move(batch.starts)
    return replace(
        batch, tokens=move(batch.tokens), targets=move(batch.targets), starts=starts, sources=move(batch.sources)
    )
