"""Muon (Jordan et al. 2024): a matrix moves along its orthogonalised momentum, every direction by the same length.

A matrix that ranks share is gathered for that: as many matrices as there are ranks change places, so that each rank
orthogonalises one of them whole.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from smelt.optim.rules import Members, Rule

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_TINY = 1e-7
_TOGETHER = 2**24  # elements of matrices that one rank orthogonalises at a time


def _update(group: dict[str, Any], members: Members) -> None:
    kept, lr, momentum = members.kept(), group["lr"], group["momentum"]
    averages, directions = members.slots["momentum_buffer"], []
    for step, grad, average in zip(members.steps, members.grads, averages, strict=True):
        step += kept
        average.lerp_(grad, (1 - momentum) * kept)
        directions.append(grad.lerp(average, momentum) if group["nesterov"] else average)
    for chosen in _batches(members.params):
        together = _orthogonal_pieces([directions[i] for i in chosen], [members.params[i] for i in chosen])
        for index, direction in zip(chosen, together, strict=True):
            rate = lr * _ratio(group["adjust_lr"], members.params[index].shape)
            weight = members.pieces[index]
            weight.mul_((1 - lr * group["weight_decay"]) ** kept)
            weight.add_(members.unless_skipped(direction.to(weight.dtype)), alpha=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """U V^T of each matrix U S V^T, singular values between 0.6 and 1.3: float or bfloat16 `[n, rows, columns]` -> the
    same. Five Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    accurate = torch.promote_types(wide.dtype, torch.float32)
    norm = torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True, dtype=accurate).clamp_(min=_TINY)
    wide = (wide / norm).to(matrices.dtype)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = torch.bmm(wide, wide.mT)
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide


def _ratio(adjust: str, shape: torch.Size) -> float:
    rows, columns = shape[-2:]
    return 0.2 * math.sqrt(max(rows, columns)) if adjust == "match_rms_adamw" else math.sqrt(max(1, rows / columns))


def _batches(params: Sequence[Any]) -> Iterator[list[int]]:
    """Indices of parameters to orthogonalise together: matrices of one shape that lie on the ranks in the same way.

    Experts, `[experts, rows, columns]`, are a batch by themselves.
    """
    alike: dict[Any, list[int]] = {}
    for index, param in enumerate(params):
        where = (param.device_mesh, param.placements) if hasattr(param, "placements") else None
        alike.setdefault((param.shape, where, index if param.ndim == 3 else None), []).append(index)
    for (shape, where, _), indices in alike.items():
        size = where[0].size() if where else max(1, _TOGETHER // shape.numel())
        yield from (indices[first : first + size] for first in range(0, len(indices), size))


def _orthogonal_pieces(pieces: list[Tensor], params: list[Tensor]) -> list[Tensor]:
    """This rank's pieces of the orthogonalised matrices of which it holds `pieces`, where `params` say they lie."""
    dtype = torch.float64 if pieces[0].dtype == torch.float64 else torch.bfloat16
    experts = pieces[0].ndim == 3
    stack = pieces[0].to(dtype) if experts else torch.stack(pieces).to(dtype)  # [n, rows, columns], or pieces of them
    placements = getattr(params[0], "placements", ())
    if all(place.is_replicate() or (experts and _axis(place) == 0) for place in placements):
        result = orthogonal(stack)
    else:
        result = _by_turns(stack, params, experts)
    return [result] if experts else list(result.unbind())


def _by_turns(stack: Tensor, params: list[Tensor], experts: bool) -> Tensor:
    """`orthogonal` of matrices of which `stack` holds pieces: whole ones are dealt to the ranks, and dealt back."""
    from torch.distributed.tensor import DTensor, Shard

    first: Any = params[0]
    mesh, shape = first.device_mesh, first.shape if experts else torch.Size((len(params), *first.shape))
    stride = (shape[1] * shape[2], shape[2], 1)
    lying = first.placements if experts else [_moved(place) for place in first.placements]
    dealt = [Shard(0)] * mesh.ndim
    whole = DTensor.from_local(stack, mesh, lying, run_check=False, shape=shape, stride=stride).redistribute(
        placements=dealt
    )
    done = orthogonal(whole.to_local()).contiguous()
    back = DTensor.from_local(done, mesh, dealt, run_check=False, shape=shape, stride=stride)
    return back.redistribute(placements=lying).to_local()


def _axis(place: Any) -> int | None:
    """The axis that a placement splits, in one stretch a rank or in several."""
    axis: int | None = getattr(place, "dim", None)
    return axis


def _moved(place: Any) -> Any:
    """The placement of a tensor's axes when a new one is put before them."""
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    if isinstance(place, _StridedShard):
        return _StridedShard(place.dim + 1, split_factor=place.split_factor)
    return Shard(place.dim + 1) if isinstance(place, Shard) else place


MUON = Rule(("momentum_buffer",), _update)
