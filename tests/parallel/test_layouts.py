"""Every layout trains exactly as one process does, from the same weights."""

from functools import cache
from typing import Any

import pytest
import torch
from reference import DENSE, plain, spread, weights_are_those_of_one_process

MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 16, "shared_width": 8, "balance": {"kind": "bias"}}
MODELS: dict[str, dict[str, Any]] = {
    "dense": {**DENSE, "layers": 2},
    "experts": {**DENSE, "layers": 2, "tie_embeddings": False, "feedforward": MOE},
}
LAYOUTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "zero 1": (2, "dense", {"zero": 1}),
    "zero 2": (2, "dense", {"zero": 2}),
    "zero 3": (2, "dense", {"zero": 3}),
    "hybrid": (4, "dense", {"replicate": 2, "zero": 2}),
    "tensor": (2, "dense", {"tensor": 2}),
    "tensor and sequence": (2, "dense", {"tensor": 2, "sequence_parallel": True}),
    "data, tensor and sequence": (4, "dense", {"tensor": 2, "sequence_parallel": True, "zero": 3}),
    "data and tensor, experts cut": (4, "experts", {"tensor": 2, "zero": 1}),
    "context and tensor": (4, "dense", {"context": 2, "tensor": 2, "sequence_parallel": True}),
    "pipeline and tensor": (4, "dense", {"pipeline": 2, "tensor": 2}),
    "pipeline and data": (4, "experts", {"pipeline": 2, "zero": 1}),
    "experts over data and tensor": (4, "experts", {"expert": 2, "tensor": 2}),
    "experts over sequence pieces": (2, "experts", {"expert": 2, "tensor": 2, "sequence_parallel": True}),
    "experts over context": (4, "experts", {"expert": 4, "context": 2}),
}
SLOW = (
    "data and tensor, experts cut",
    "context and tensor",
    "experts over data and tensor",
    "experts over context",
)
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


@cache
def expected(model: str, dtype: str) -> tuple[list[float], list[float]]:
    return plain(MODELS[model], getattr(torch, dtype))


def run(layout: dict[str, Any], model: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    same = weights_are_those_of_one_process(layout, model)
    return same, {dtype: spread(layout, model, dtype, 2 if "zero" in layout else 8) for dtype in TOLERANCE}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in LAYOUTS]
)
def test_weights_losses_and_norms_of_twenty_steps_are_those_of_one_process(pool: Any, name: str) -> None:
    """INFRA-05, OPT-12, MARA-06: initial weights byte-equal; losses and norms against a plain PyTorch loop."""
    ranks, model, layout = LAYOUTS[name]
    for same, results in pool(ranks, run, layout, MODELS[model]):
        assert same
        for dtype, tolerance in TOLERANCE.items():
            for ours, theirs in zip(results[dtype], expected(model, dtype), strict=True):
                assert ours == pytest.approx(theirs, rel=tolerance, abs=0)
