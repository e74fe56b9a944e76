"""Expert parallelism: each rank holds a share of the experts of every layer, and tokens travel to those they chose.

No choice is dropped, however many fall on one rank: ranks first tell each other how many rows they will send.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from smelt.model.experts import Choices, Experts
from smelt.parallel.rows import all_to_all


def expert_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    """Give each rank of the one-dimensional `mesh` an equal share of the experts of every layer, in place.

    Parameters of experts become DTensors cut by expert. Ranks are called with different tokens; the gradient of an
    expert is that of the tokens of all ranks of `mesh`.
    """
    for module in [each for each in model.modules() if isinstance(each, Experts)]:
        for name, parameter in module.named_parameters(recurse=False):
            cut = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
            module.register_parameter(name, nn.Parameter(cut))
        module.__class__ = SharedExperts
        module.ranks, module.group = mesh.size(), mesh.get_group().group_name


class SharedExperts(Experts):
    """Experts of which this rank holds some: those at its place in the order of ranks."""

    ranks: int
    group: str  # the name of their process group

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
        ranks, choices = self.ranks, Choices(chosen)
        here = len(counts) // ranks  # experts on each rank
        leaving = counts.view(ranks, here)
        coming = all_to_all(counts, [here] * ranks, [here] * ranks, self.group).view(ranks, here)
        # The sizes of what is sent must be known on the host: the device is waited for.
        sent, received = torch.stack((leaving.sum(1), coming.sum(1))).tolist()
        rows = all_to_all(choices.spread(x), received, sent, self.group)
        weight = all_to_all(choices.sorted(weights), received, sent, self.group)
        expert = torch.arange(here, device=x.device).repeat(ranks)
        expert = expert.repeat_interleave(coming.flatten(), output_size=sum(received))
        out = Experts.forward(_Pieces(self), rows, expert[:, None], weight[:, None], coming.sum(0))
        return choices.gather(all_to_all(out, sent, received, self.group))


class _Pieces:
    """A module as its own code is to see it: parameters are this rank's pieces, as plain tensors."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        return found.to_local() if isinstance(found, DTensor) else found
