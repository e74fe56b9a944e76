"""Our optimizers on the parameters of real engines: the losses of every layout are those of one process."""

from typing import Any

import pytest
import torch
from reference import CPU, DENSE, VOCAB, batch, engine_of, own_rows

from smelt.model.decoder import Decoder
from smelt.optim.optimizers import build_optimizer
from smelt.optim.skip import Skip, update
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.optimizer import AdEMAMix, Lion, Muon, Optimizer, SkipStep

MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 16, "shared_width": 8, "balance": {"kind": "bias"}}
EXPERTS = {**DENSE, "layers": 2, "tie_embeddings": False, "feedforward": MOE}
SECTIONS = (
    Muon(kind="muon", lr=3e-3),
    AdEMAMix(kind="ademamix", lr=3e-3, warmup_steps=9),
    Lion(kind="lion", lr=1e-3, no_decay=("norm",)),
)
STEPS, SPOILT = 12, 5
SLOW = ("data, tensor and sequence", "hybrid")
LAYOUTS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "data, tensor and sequence": (4, DENSE, {"tensor": 2, "sequence_parallel": True, "zero": 3}),
    "hybrid": (4, DENSE, {"replicate": 2, "zero": 2}),
    "pipeline and data": (4, DENSE, {"pipeline": 2, "zero": 1}),
    "experts over data and tensor": (4, EXPERTS, {"expert": 2, "tensor": 2}),
}


def losses(layout: dict[str, Any], model: dict[str, Any], section: Optimizer) -> list[float]:
    """Steps in float64, of which one that is spoilt is skipped."""
    engine, world = engine_of(layout, model, torch.float64)
    names = [
        name for name, each in Decoder(Model.model_validate(model), VOCAB).named_parameters() if each.requires_grad
    ]
    optimizer = build_optimizer(engine.named_parameters(), section, names=names)
    skip, seen = Skip(SkipStep(), CPU), []
    for step in range(STEPS):
        rows = (own_rows(each, world) for each in batch(step))
        valid = (batch(step)[2] >= 0).sum().double()
        loss = world.sum(engine.forward_backward(*rows, 2, 1 / valid).sum()) / valid
        engine.reduce_gradients()
        if step == SPOILT:
            for _, parameter in engine.named_parameters():
                parameter.grad = None if parameter.grad is None else parameter.grad * torch.nan
        update(optimizer, skip.decide(loss, engine.clip(0.5)))
        optimizer.zero_grad()
        seen.append(loss.item())
    return [*seen, int(skip.skipped)]


def of_all(layout: dict[str, Any], model: dict[str, Any]) -> list[list[float]]:
    return [losses(layout, model, section) for section in SECTIONS]


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in LAYOUTS]
)
def test_losses_are_those_of_one_process(pool: Any, name: str) -> None:
    """Issue 4, show 1, in float64, where Muon's iteration runs in float64 too."""
    ranks, model, layout = LAYOUTS[name]
    (expected,) = pool(1, of_all, {}, model)
    assert all(seen[-1] == 1 for seen in expected)
    for found in pool(ranks, of_all, layout, model):
        for section, ours, theirs in zip(SECTIONS, found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9, abs=0), section.kind
