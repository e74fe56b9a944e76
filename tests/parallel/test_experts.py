"""Expert parallelism against one device."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from reference import DENSE, plain
from reference import spread as train
from small_models import decoder, section, starts_of, tokens
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from smelt.model.balance import Balance
from smelt.model.decoder import Decoder
from smelt.parallel.experts import expert_parallel

ROWS = [[13, 2, 9], [24], [1, 22, 1], [5, 19]]
MOE = {"kind": "moe", "experts": 8, "top_k": 2, "width": 16}
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def model_of(name: str, dtype: torch.dtype) -> Decoder:
    model = decoder(section(feedforward=MIXTURES[name], layers=2), dtype=dtype).to(dtype)
    if name == "one expert has all":
        for layer in model.layers:
            layer.feedforward.router.bias.data[3] = 99
    return model


def results(model: Decoder, rank: int, ranks: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of a rank's rows, and gradients of its part of the mean over all."""
    ids, starts, targets = tokens(len(ROWS), 24), starts_of(ROWS), tokens(len(ROWS), 24, seed=1)
    own = [x.chunk(ranks)[rank] for x in (ids, starts, targets)]
    losses = model(own[0], starts=own[1], targets=own[2])
    (losses.sum() / ids.numel()).backward()
    return losses.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def spread(name: str, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """On a rank: losses joined, gradients of experts gathered and those of all else summed."""
    model, ranks = model_of(name, dtype), dist.get_world_size()
    expert_parallel(model, init_device_mesh("cpu", (ranks,), mesh_dim_names=("expert",)))
    for module in model.modules():
        if isinstance(module, Balance):
            module.sum_over_ranks = summed
    losses, grads = results(model, dist.get_rank(), ranks)
    parts = [torch.empty_like(losses) for _ in range(ranks)]
    dist.all_gather(parts, losses)
    whole = {n: g.full_tensor() if isinstance(g, DTensor) else summed(g) for n, g in grads.items()}
    return torch.cat(parts), whole


def summed(x: Tensor) -> Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total


MIXTURES: dict[str, dict[str, Any]] = {
    "plain": MOE,
    "biased": {**MOE, "bias": True, "activation": "clamped_swiglu"},
    "shared, no gate": {**MOE, "activation": "relu2", "shared_width": 12, "shared_gate": True},
    "one expert has all": {**MOE, "top_k": 1, "normalize": False, "bias": True},
    "balanced by a loss": {**MOE, "balance": {"kind": "loss", "weight": 0.1}, "z_loss": 0.01},
}


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_on_many_ranks_give_the_losses_and_gradients_of_one(pool: Any, name: str) -> None:
    wanted, grads = results(model_of(name, torch.float64), 0, 1)
    for found, found_grads in pool(4, spread, name, torch.float64):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        assert found_grads.keys() == grads.keys()
        for key, grad in grads.items():
            torch.testing.assert_close(found_grads[key], grad, rtol=1e-9, atol=1e-9, msg=key)


def sparse(**changes: Any) -> dict[str, Any]:
    return {**DENSE, "layers": 2, "feedforward": {**MOE, **changes}}


GLOBAL = sparse(balance={"kind": "loss"}, z_loss=0.001)
LOCAL = sparse(balance={"kind": "loss", "scope": "local"}, shared_width=12)
BIASED = sparse(experts=2, top_k=1, normalize=False, balance={"kind": "bias"}, bias=True)
# Processes, model, rows a micro-batch of one process and of each of these, and the layout. Balancing losses go by the
# tokens of a micro-batch, or of those before it too, so each process takes its part of the micro-batches of one.
LAYOUTS: dict[str, tuple[int, dict[str, Any], int, int, dict[str, Any]]] = {
    "shared by all": (2, GLOBAL, 8, 4, {"layout": {"expert": 2}, "recompute": "full"}),
    "in two copies": (4, GLOBAL, 8, 4, {"layout": {"expert": 2, "replicate": 2, "zero": 3}}),
    "one each, in two copies": (4, BIASED, 2, 1, {"layout": {"expert": 2}}),
    "rows shared too": (2, LOCAL, 4, 4, {"layout": {"expert": 2, "context": 2}}),
}


def run(infra: dict[str, Any], model: dict[str, Any], micro_batch: int) -> dict[str, Any]:
    layout, rest = infra["layout"], {name: value for name, value in infra.items() if name != "layout"}
    return {dtype: train(layout, model, dtype, micro_batch, **rest) for dtype in TOLERANCE}


@pytest.mark.parametrize("name", LAYOUTS)
def test_losses_and_norms_of_twenty_steps_are_those_of_one_process(pool: Any, name: str) -> None:
    """INFRA-05: float64 by the experts' plain loop, float32 by PyTorch's grouped product."""
    ranks, model, rows, own, infra = LAYOUTS[name]
    wanted = {dtype: plain(model, getattr(torch, dtype), rows) for dtype in TOLERANCE}
    for results in pool(ranks, run, infra, model, own):
        for dtype, tolerance in TOLERANCE.items():
            for ours, theirs in zip(results[dtype], wanted[dtype], strict=True):
                assert ours == pytest.approx(theirs, rel=tolerance, abs=0)
