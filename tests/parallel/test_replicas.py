"""At the start of a run, processes that hold what they should not are found out."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from reference import DENSE, engine_of

from smelt.errors import InputError
from smelt.parallel import initial
from smelt.parallel.boxes import Box
from smelt.parallel.replicas import check_replicas

MODEL = {**DENSE, "layers": 1, "tie_embeddings": False}
LAYOUTS: list[dict[str, Any]] = [{"tensor": 2}, {"zero": 3}]


def _correlation(layout: dict[str, Any]) -> float:
    return check_replicas(engine_of(layout, MODEL)[0])


def _same_seed(layout: dict[str, Any]) -> str:
    """Every process draws its part as if it stood at the beginning."""
    real = initial.boxes

    def at_the_beginning(tensor: torch.Tensor) -> Iterator[tuple[Box, torch.Tensor]]:
        for box, part in real(tensor):
            yield box._replace(begin=(0,) * tensor.ndim), part

    initial.boxes = at_the_beginning
    try:
        engine, _ = engine_of(layout, MODEL)
    finally:
        initial.boxes = real
    return _refusal(engine)


def _norm_apart(layout: dict[str, Any]) -> str:
    """One process holds another value of what all should hold."""
    engine, world = engine_of(layout, MODEL)
    if world.rank == 1:
        with torch.no_grad():
            dict(engine.named_parameters())["norm.weight"].to_local().add_(1e-6)
    return _refusal(engine)


def _refusal(engine: Any) -> str:
    try:
        check_replicas(engine)
    except InputError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_parts_drawn_as_they_should_be_are_not_alike(pool: Any, layout: dict[str, Any]) -> None:
    """MARA-06: the correlation of shards is near 0."""
    assert all(0 <= size < 0.25 for size in pool(2, _correlation, layout))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_equal_seeds_on_all_processes_are_caught(pool: Any, layout: dict[str, Any]) -> None:
    """MARA-06: the planted fault, a correlation of 1, stops every process."""
    for refusal in pool(2, _same_seed, layout):
        assert "have correlation 1.00: they were drawn with the same seed" in refusal


def test_a_copy_that_differs_is_caught(pool: Any) -> None:
    """MARA-06: tensors that are replicated must be identical across processes."""
    for refusal in pool(2, _norm_apart, {"tensor": 2}):
        assert "processes [0, 1] should hold the same 'norm.weight', and do not" in refusal
