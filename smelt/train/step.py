"""One optimizer step: micro-batches whose gradients add up to exactly the whole batch's mean loss.

Nothing here reads a number from the device: whoever logs a step does.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smelt.dataset.batches import Batch
from smelt.model.balance import LayerUse, after_step
from smelt.model.measures import mean, totals
from smelt.optim.skip import Skip, update
from smelt.parallel.engine import Engine
from smelt.parallel.world import World
from smelt.train.timing import Timings

DATA = ("replicate", "shard")  # dimensions of the mesh whose ranks read different rows


@dataclass(frozen=True)
class StepResult:
    """What a step leaves behind, on the device.

    `loss_sums` and `token_counts` by source, float64 `[sources]`, are this rank's until `gathered`; so are `sums`, the
    `[values, tokens]` of what else the model followed. `grad_norm` is the whole model's. `experts` for a model that
    has some.
    """

    loss_sums: Tensor
    token_counts: Tensor
    grad_norm: Tensor
    sums: Mapping[str, Tensor]
    experts: Sequence[LayerUse] = ()

    @property
    def means(self) -> dict[str, Tensor]:
        """What else the model followed, averaged over its tokens."""
        return {name: mean(total) for name, total in self.sums.items()}

    def gathered(self, world: World, names: Sequence[str]) -> "StepResult":
        """The same over all ranks, for which every rank has to ask; `names` are all that the model's parts follow."""
        if world.ranks == 1:
            return self
        none = self.loss_sums.new_zeros(2)
        kept = [self.sums.get(name, none).double() for name in names]
        losses, *sums = world.sum(torch.cat((self.loss_sums, *kept))).split([len(self.loss_sums), *[2] * len(kept)])
        counts = world.sum_over(self.token_counts, *DATA)
        return replace(self, loss_sums=losses, token_counts=counts, sums=dict(zip(names, sums, strict=True)))


def train_step(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    lr: float,
    clip: float,
    micro_batch: int,
    sources: int,
    skip: Skip | None = None,
    before_update: Callable[[], None] = lambda: None,
    timings: Timings | None = None,
) -> StepResult:
    """Forward, backward, clip and update on one global batch, of which `batch` has this rank's rows, on its device.

    The gradient is that of the sum of token losses over the number of valid tokens of the whole batch, whatever
    `micro_batch` and the layout are. `grad_norm` is the global L2 norm before clipping. `skip` may pass over the
    update, before which `before_update` is called.
    """
    world, phase = engine.world, timings.phase if timings is not None else _untimed
    with phase("forward_backward"):
        counts = (batch.targets >= 0).sum(1).double()  # [rows]
        token_counts = _by_source(counts, batch.sources, sources)
        valid = world.sum_over(token_counts.sum(), *DATA).clamp(min=1)
        losses = engine.forward_backward(batch.tokens, batch.starts, batch.targets, micro_batch, 1 / valid)
        loss_sums = _by_source(losses, batch.sources, sources)
        engine.reduce_gradients()
    with phase("optimizer"):
        grad_norm = engine.clip(clip)
        before_update()
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        update(optimizer, None if skip is None else skip.decide(world.sum(loss_sums.sum()) / valid, grad_norm))
        optimizer.zero_grad(set_to_none=True)
        sums = {name: total for part in engine.parts for name, total in totals(part).items()}
        experts = [use for part in engine.parts for use in after_step(part)]
    return StepResult(loss_sums, token_counts, grad_norm, sums, experts)


def _by_source(values: Tensor, of: Tensor, sources: int) -> Tensor:
    """Float64 values of rows, `[rows]`, added up by source, `[sources]`."""
    return values.new_zeros(sources).index_add_(0, of, values)


def _untimed(name: str) -> nullcontext[None]:
    return nullcontext()
