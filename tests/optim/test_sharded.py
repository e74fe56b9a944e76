"""Sharded over ranks in any way, parameters move as on one device, and their state goes from layout to layout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smelt.optim.averaging import follow
from smelt.optim.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from smelt.optim.skip import Skip, update
from smelt.recipe.sections.optimizer import AdamW, AdEMAMix, Lion, Muon, Optimizer, OwnOptimizer, SkipStep

SHAPES = {
    "embedding.weight": (7, 6),
    "layers.0.q.weight": (6, 6),
    "layers.0.up.weight": (10, 6),
    "layers.1.q.weight": (6, 6),
    "layers.1.up.weight": (10, 6),
    "layers.2.up.weight": (10, 6),
    "layers.2.experts.down": (4, 6, 3),
    "norm.weight": (3,),
}
SECTIONS = [
    AdamW(lr=0.1),
    Muon(kind="muon", lr=0.1),
    AdEMAMix(kind="ademamix", lr=0.1, warmup_steps=3),
    Lion(kind="lion", lr=0.1),
    OwnOptimizer(kind="torch.optim:AdamW", lr=0.1),
]
LAYOUTS = {"data": 2, "hybrid": 4, "columns": 4, "rows": 4, "experts": 4}


def placed(layout: str) -> Callable[[str, Tensor], Tensor]:
    """How a layout lays a tensor out, as the parallel room does it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.placement_types import _StridedShard

    if layout == "data":
        mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("shard",))
        return lambda name, tensor: distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    tensor_split = {"columns": [_StridedShard(0, split_factor=2), Shard(0)], "rows": [Shard(0), Shard(1)]}

    def place(name: str, tensor: Tensor) -> Tensor:
        if layout == "hybrid":
            placements: list[Any] = [Replicate(), Shard(0)]
        elif layout == "experts" and "experts" in name:
            placements = [Shard(1), Shard(0)]
        elif layout == "experts":  # a mesh of its own, and one parameter that every rank holds whole
            return tensor if name == "norm.weight" else distribute_tensor(tensor, flat, [Shard(0)], src_data_rank=None)
        else:
            placements = tensor_split[layout] if "up" in name else [Shard(0), Replicate()]
        return distribute_tensor(tensor, mesh, placements, src_data_rank=None)

    flat = mesh._flatten("flat")
    return place


def numbers(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def run(
    section: Optimizer, place: Callable[[str, Tensor], Tensor], state: dict[str, Tensor], first: int, skips: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ten steps from step `first`, of which one in three is skipped if `skips`; parameters and state, whole."""
    start = state or numbers(0)
    named = {name: nn.Parameter(place(name, start[name].clone())) for name in SHAPES}
    optimizer = build_optimizer(named.items(), section)
    load_optimizer_tensors(optimizer, {name: tensor for name, tensor in state.items() if name not in SHAPES})
    for step in range(first, first + 10):
        for name, gradient in numbers(1 + step).items():
            named[name].grad = place(name, gradient)
        update(optimizer, torch.tensor(step % 3 == 2) if skips else None)
        follow(optimizer, 0.9)
    return whole(named), whole(optimizer_tensors(optimizer))


def whole(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {
        name: (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()
        for name, tensor in tensors.items()
    }


def twice(section: Optimizer, place: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """Ten steps, then, from the whole tensors that they left, ten more of which some are skipped."""
    weights, state = run(section, place, {}, 0, skips=False)
    weights, state = run(section, place, {**weights, **state}, 10, skips=True)
    return {**weights, **state}


def sections(layout: str) -> list[Optimizer]:
    """PyTorch's own classes do not mix meshes."""
    return [each for each in SECTIONS if layout != "experts" or not isinstance(each, OwnOptimizer)]


def on_ranks(layout: str) -> list[dict[str, Tensor]]:
    place = placed(layout)
    return [twice(section, place) for section in sections(layout)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_moves_parameters_as_one_device_does(pool, layout: str) -> None:
    """OPT-02: Muon orthogonalises whole matrices, however they are sharded, and state loads into any layout."""
    for section, *found in zip(sections(layout), *pool(LAYOUTS[layout], on_ranks, layout), strict=True):
        expected = twice(section, lambda name, tensor: tensor)
        for each in found:
            assert each.keys() == expected.keys()
            for name, tensor in expected.items():
                where = f"{section.kind}, {name}"
                torch.testing.assert_close(
                    each[name], tensor, rtol=1e-9, atol=1e-9, msg=lambda text, at=where: at + text
                )


def in_float32(layout: str | None) -> dict[str, Tensor]:
    """Five steps of Muon."""
    place = placed(layout) if layout else lambda name, tensor: tensor
    named = {name: nn.Parameter(place(name, tensor.float())) for name, tensor in numbers(0).items()}
    optimizer = build_optimizer(named.items(), Muon(kind="muon", lr=0.1))
    for step in range(5):
        for name, gradient in numbers(1 + step).items():
            named[name].grad = place(name, gradient.float())
        optimizer.step()
    return whole(named)


def test_in_float32_sharding_costs_muon_no_more_than_rounding(pool) -> None:
    """Muon's iteration runs in bfloat16, with its own tolerance."""
    expected = in_float32(None)
    for found in pool(4, in_float32, "columns"):
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0.02)


def decisions() -> list[bool]:
    skip = Skip(SkipStep(sigmas=3, window=8), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(40, generator=generator)
    losses[20] = 9
    return [bool(skip.decide(loss, loss)) for loss in losses]


def test_all_ranks_skip_the_same_steps(pool) -> None:
    """Each rank decides alone, from numbers that are the same on all."""
    first, *others = pool(2, decisions)
    assert first[20] and all(other == first for other in others)
