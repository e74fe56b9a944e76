"""One optimizer step: micro-batches whose gradients add up to exactly the whole batch's mean loss."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smelt.dataset.batches import Batch
from smelt.model.balance import LayerUse, after_step
from smelt.model.measures import settled


@dataclass(frozen=True)
class StepResult:
    """What a step leaves behind, on the device: `loss_sums` and `token_counts` by source, float64 [sources]; `means` of
    what else the model followed, over its tokens; `experts` for a model that has some."""

    loss_sums: Tensor
    token_counts: Tensor
    grad_norm: Tensor
    forward_backward_seconds: float
    optimizer_seconds: float
    means: dict[str, Tensor]
    experts: Sequence[LayerUse] = ()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    lr: float,
    clip: float,
    micro_batch: int,
    sources: int,
    device: torch.device,
) -> StepResult:
    """Forward, backward, clip and update on one global batch.

    The gradient is that of the sum of token losses over the number of valid tokens of the whole batch, whatever
    `micro_batch` is. `grad_norm` is the global L2 norm before clipping. Phase times are host times.
    """
    start = time.perf_counter()
    valid = (batch.targets >= 0).sum().clamp(min=1).item()
    loss_sums = torch.zeros(sources, dtype=torch.float64, device=device)
    token_counts = torch.zeros(sources, dtype=torch.float64, device=device)
    for rows in range(0, len(batch.tokens), micro_batch):
        part = slice(rows, rows + micro_batch)
        tokens, starts, targets, of = (
            tensor[part].to(device, non_blocking=True)
            for tensor in (batch.tokens, batch.starts, batch.targets, batch.sources)
        )
        losses = model(tokens, starts=starts, targets=targets)  # [micro_batch, seq]
        (losses.sum() / valid).backward()
        loss_sums.index_add_(0, of, losses.detach().double().sum(dim=1))
        token_counts.index_add_(0, of, (targets >= 0).double().sum(dim=1))
    backward_done = time.perf_counter()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    means, experts = settled(model), after_step(model)
    end = time.perf_counter()
    return StepResult(loss_sums, token_counts, grad_norm, backward_done - start, end - backward_done, means, experts)
