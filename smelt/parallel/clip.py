"""The norm of all gradients of all processes, every parameter counted once, and clipping to it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from smelt.parallel.world import DIMENSIONS, World


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], max_norm: float, world: World) -> Tensor:
    """Scale gradients down to the L2 norm `max_norm` where they exceed it; returns the norm before that.

    A parameter that several processes hold is counted by the first of them.
    """
    if world.mesh is None:
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    grads = [each.grad for each in parameters if each.grad is not None]
    parts = [_part(grad) for grad in grads]
    counted = [part for grad, part in zip(grads, parts, strict=True) if _counts(grad, world)]
    squares = torch.zeros((), dtype=torch.float64, device=world.device)
    if counted:
        squares += torch.stack(torch._foreach_norm(counted)).double().square().sum()
    norm = world.sum_over(squares, *DIMENSIONS).sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if parts:
        torch._foreach_mul_(parts, scale.to(parts[0].dtype))
    return norm.to(torch.float32) if not parts else norm.to(parts[0].dtype)


def _part(grad: Tensor) -> Tensor:
    return getattr(grad, "_local_tensor", grad)


def _counts(grad: Tensor, world: World) -> bool:
    """Whether this process is the first of those that hold this part of a gradient: at 0 along every dimension of the
    mesh by which it is not cut. Stages of a pipeline hold different parameters."""
    from torch.distributed.tensor import DTensor

    cut: set[str] = {"pipeline"}
    if isinstance(grad, DTensor):
        names = grad.device_mesh.mesh_dim_names or ()
        for name, placement in zip(names, grad.placements, strict=True):
            if not placement.is_replicate():
                cut |= {"shard", "context", "tensor"} if name.startswith("expert") else set(name.split("_"))
    return all(world.mesh.get_local_rank(name) == 0 for name in DIMENSIONS if name not in cut)
