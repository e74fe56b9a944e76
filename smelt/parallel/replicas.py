"""At the start of a run: do processes that should hold the same weights hold the same, and those that should hold
different parts of a matrix different ones? Processes that draw alike train on, worse, and nothing else shows it."""

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from smelt.errors import InputError
from smelt.parallel.engine import Engine

SAMPLE = 1024  # elements of a part that are compared; their chance correlation is about 1 / 32
LEAST = 256  # too few elements say nothing
ALIKE = 0.5


@torch.no_grad()
def check_replicas(engine: Engine, fresh: bool = True) -> float:
    """The largest correlation between parts of a matrix on different processes; InputError, on every process, where
    copies differ or parts are alike. Only `fresh` weights are sure to have no parts alike."""
    world = engine.world
    if world.mesh is None:
        return 0.0
    drawn = _drawn(engine.parts) if fresh else set()
    same, cut = defaultdict(list), defaultdict(list)
    for name, parameter in engine.named_parameters():
        for group, is_cut in _groups(parameter, world.mesh):
            if not is_cut:
                same[group].append((name, _local(parameter)))
            elif name in drawn:
                cut[group].append((name, _local(parameter)))
    problem = next(filter(None, (_differing(group, each) for group, each in same.items())), "")
    alike = max((_alike(group, each) for group, each in cut.items()), default=(0.0, ""))
    if not problem and alike[0] > ALIKE:
        problem = (
            f"parts of '{alike[1]}' on different processes have correlation {alike[0]:.2f}: they were drawn with the "
            "same seed"
        )
    problems: list[Any] = [None] * world.ranks
    dist.all_gather_object(problems, (problem, alike[0]))
    found = next((text for text, _ in problems if text), "")
    if found:
        raise InputError(f"infra.layout: {found}; nothing was trained: report this, with the recipe")
    return max(size for _, size in problems)


def _drawn(parts: list[nn.Module]) -> set[str]:
    """Parameters whose initial values are random, so that no two stretches of them are alike."""
    return {
        f"{path}.{own}"
        for part in parts
        for path, module in part.named_modules()
        for own, parameter in module._parameters.items()
        if parameter is not None and own not in getattr(module, "fills", {})
    }


def _groups(parameter: nn.Parameter, mesh: Any) -> list[tuple[Any, bool]]:
    """The process groups along which a parameter is cut, or (False) held more than once."""
    from torch.distributed.tensor import DTensor

    if not isinstance(parameter, DTensor):
        names = ("replicate", "shard", "context", "tensor")
        return [(mesh.get_group(name), False) for name in names if mesh[name].size() > 1]
    places = enumerate(parameter.placements)
    return [
        (parameter.device_mesh.get_group(dim), not placement.is_replicate())
        for dim, placement in places
        if parameter.device_mesh.size(dim) > 1
    ]


def _local(parameter: nn.Parameter) -> Tensor:
    part: Tensor = getattr(parameter, "_local_tensor", parameter).detach()
    return part.flatten()


def _differing(group: Any, parameters: list[tuple[str, Tensor]]) -> str:
    """In words, the first parameter of which the processes of a group do not hold the same."""
    sums = torch.stack([_checksum(part) for _, part in parameters])
    least, most = sums.clone(), sums.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN, group)
    dist.all_reduce(most, dist.ReduceOp.MAX, group)
    for (name, _), low, high in zip(parameters, least.tolist(), most.tolist(), strict=True):
        if low != high:
            return f"processes {dist.get_process_group_ranks(group)} should hold the same '{name}', and do not"
    return ""


def _checksum(part: Tensor) -> Tensor:
    """An integer that depends on every bit and on its place."""
    bits = part.contiguous().view(torch.int32 if part.itemsize == 4 else torch.int64).to(torch.int64)
    return (bits * (2 * torch.arange(len(bits), device=bits.device) + 1)).sum()


def _alike(group: Any, parameters: list[tuple[str, Tensor]]) -> tuple[float, str]:
    """The largest correlation of this process's part with that of the first process of the group, and whose it is."""
    own = torch.full((len(parameters), SAMPLE), torch.nan, device=parameters[0][1].device)
    for row, (_, part) in zip(own, parameters, strict=True):
        row[: len(part)] = part[:SAMPLE]
    first = own.clone()
    dist.broadcast(first, dist.get_process_group_ranks(group)[0], group)
    if dist.get_rank(group) == 0:
        return 0.0, ""
    worst = (0.0, "")
    for (name, _), a, b in zip(parameters, own, first, strict=True):
        pair = torch.stack((a, b))[:, ~(a + b).isnan()]
        if pair.shape[1] >= LEAST:
            worst = max(worst, (abs(torch.corrcoef(pair)[0, 1].item()), name))
    return worst
