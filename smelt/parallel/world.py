"""The processes that train together: who this one is, which data it reads, and sums over all of them."""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smelt.recipe.sections.infra import Layout

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

DIMENSIONS = ("pipeline", "replicate", "shard", "context", "tensor")  # of the mesh, outermost first
# Dimensions that somebody sums over or cuts along together.
TOGETHER = [DIMENSIONS[first:end] for first, end in ((0, 5), (0, 4), (1, 3), (1, 4), (1, 5), (2, 4), (2, 5), (3, 5))]
TIMEOUT = timedelta(minutes=10)  # a collective that waits longer has lost a partner


@dataclass
class World:
    """This process among `ranks`. A world of one has no process group, and everything here costs it nothing."""

    rank: int
    ranks: int
    device: torch.device
    layout: Layout = field(default_factory=lambda: Layout(data=1))
    mesh: Any = None
    _owns_group: bool = False

    @classmethod
    def single(cls, device: torch.device) -> "World":
        """One process alone."""
        return cls(0, 1, device)

    @classmethod
    def of_environment(cls, device: torch.device) -> "World":
        """What torchrun says this process is; alone where it did not start it. On CUDA, one device a process."""
        rank, ranks, local = (int(os.environ.get(*each)) for each in _VARIABLES)
        if device.type == "cuda" and ranks > 1:
            device = torch.device("cuda", local)
        return cls(rank, ranks, device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes what only one should."""
        return self.rank == 0

    @property
    def data_ranks(self) -> int:
        """Into how many parts the rows of a batch are split."""
        return int(self.layout.data)

    @property
    def data_rank(self) -> int:
        """Which of those parts this process reads."""
        if self.mesh is None:
            return 0
        shards = self.mesh.size(DIMENSIONS.index("shard"))
        replica, shard = (self.mesh.get_local_rank(name) for name in ("replicate", "shard"))
        return int(replica * shards + shard)

    def along(self, *names: str) -> "DeviceMesh":
        """The part of the mesh with these dimensions, of which some may be 1, flattened into one."""
        names = tuple(name for name in names if self.mesh[name].size() > 1) or names[:1]
        part = self.mesh[names]
        return part if len(names) == 1 else part._flatten("_".join(names))

    @cached_property
    def experts(self) -> "DeviceMesh":
        """The processes of one copy of the model that read different tokens, as those that hold the same experts
        ("expert_shard") by those that hold different ones ("expert")."""
        everyone = self.along("shard", "context", "tensor")
        sizes = (everyone.size() // self.layout.expert, self.layout.expert)
        return everyone._unflatten(0, sizes, ("expert_shard", "expert"))

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over the ranks that hold different tokens or different layers, on all of them.

        Tensor-parallel ranks, which hold the same, are not summed.
        """
        return self.sum_over(tensor, *DIMENSIONS[:-1])

    def sum_over(self, tensor: Tensor, *names: str) -> Tensor:
        """The sum over dimensions of the mesh that stand side by side."""
        if self.mesh is None:
            return tensor
        import torch.distributed as dist

        total, mesh = tensor.detach().clone(), self.along(*names)
        if mesh.size() > 1:
            dist.all_reduce(total, group=mesh.get_group())
        return total

    def close(self) -> None:
        """Leave the process group."""
        if self._owns_group:
            import torch.distributed as dist

            dist.destroy_process_group()
        self.mesh, self._owns_group = None, False


def start(world: World, layout: Layout) -> World:
    """Join the other processes in `layout`, whose `data` is a number (`recipe.layout.check_layout`); returns `world`.

    A process group that exists already is used as it is.
    """
    world.layout = layout
    if world.ranks == 1:
        return world
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if not dist.is_initialized():
        _join(world)
        world._owns_group = True
    shards = int(layout.data) // layout.replicate
    sizes = (layout.pipeline, layout.replicate, shards, layout.context, layout.tensor)
    world.mesh = init_device_mesh(world.device.type, sizes, mesh_dim_names=DIMENSIONS)
    for names in TOGETHER:  # now, as all have to take part in making a group, and not all have every kind of layer
        world.along(*names)
    return world


def _join(world: World) -> None:
    """A process group on the launcher's store, apart from what an earlier life of this job left there: a process that
    comes late would otherwise meet addresses of processes that are gone."""
    import torch.distributed as dist

    store, *_ = next(dist.rendezvous("env://"))
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if world.device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"smelt/life{life}", store),
        rank=world.rank,
        world_size=world.ranks,
        timeout=TIMEOUT,
        device_id=world.device if world.device.type == "cuda" else None,
    )


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
