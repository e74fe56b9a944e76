"""PyTorch's pipeline schedules over stages of a decoder. Importing this takes a while: import it where it is used."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage, schedules

from smelt.parallel.stages import Stage
from smelt.parallel.world import World

NAMES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "Interleaved1F1B",
    "looped_bfs": "LoopedBFS",
    "zero_bubble": "InterleavedZeroBubble",
    "zbv": "ZBVZeroBubble",
    "dualpipev": "DualPipeV",
}

logging.getLogger(schedules.__name__).setLevel(logging.CRITICAL)  # on an error it prints hundreds of lines


class _Runner(PipelineStage):
    """A stage whose weights' gradients add up in float32 also when their part of a backward pass runs by itself."""

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        super().backward_weight_one_chunk(bwd_chunk_id, last_backward)
        for module in self.submod.modules():
            if isinstance(module, FSDPModule):
                for group in module._get_fsdp_state()._fsdp_param_groups:
                    group.post_backward()  # which reduces nothing yet, but puts gradients away in their wide dtype


def new_schedule(
    stages: Mapping[int, Stage], world: World, group: ProcessGroup, rows: int, sequence: int, count: int
) -> Any:
    """What `step` runs `count` micro-batches `[rows, sequence]` through with; `stages` of this process by number."""
    layout, held = world.layout, []
    own = sequence // layout.context // (layout.tensor if layout.sequence_parallel else 1)
    tokens = torch.empty(rows, sequence, dtype=torch.int64, device="meta")
    for number, stage in stages.items():
        shape = (rows, own, stage.config.hidden)
        hidden = torch.empty(shape, dtype=stage.dtype, device="meta", requires_grad=True)
        # Stated here, as torch would find them out by running every stage once more, which counts what it does.
        read, given = tokens if stage.first else hidden, tokens if stage.last else hidden
        total = layout.pipeline * layout.stages
        held.append(_Runner(stage, number, total, world.device, input_args=read, output_args=given, group=group))
    kind = schedules.get_schedule_class(NAMES[layout.schedule])
    single = issubclass(kind, schedules.PipelineScheduleSingle)
    return kind(held[0] if single else held, count, loss_fn=_weighted, scale_grads=False)


def _weighted(losses: Tensor, weight: Tensor) -> Tensor:
    """The sum of `losses` `[batch, seq]`, those of each row times its `weight` `[batch]`."""
    return (losses.sum(1) * weight.to(losses.dtype)).sum()
