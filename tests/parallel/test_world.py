"""Who a process is among the others, and what it costs to be alone."""

from typing import Any

import pytest
import torch

from smelt.parallel.world import World, start
from smelt.recipe.layout import resolve_layout
from smelt.recipe.sections.infra import Layout

CPU = torch.device("cpu")


def _place(layout: dict[str, Any]) -> tuple[int, int, list[float]]:
    world = World.of_environment(CPU)
    start(world, resolve_layout(Layout.model_validate(layout), world.ranks))
    mine = torch.tensor(float(2**world.rank))
    sums = [world.sum(mine), world.sum_over(mine, "tensor"), world.sum_over(mine, "replicate", "shard")]
    place = world.data_rank, world.data_ranks, [each.item() for each in sums]
    world.close()  # leaves alone a group that it has not made
    assert torch.distributed.is_initialized()
    return place


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        # ranks 0-3 hold 1, 2, 4, 8; tensor is innermost, pipeline outermost
        ({"tensor": 2}, [(0, 2, [5, 3, 5]), (0, 2, [10, 3, 10]), (1, 2, [5, 12, 5]), (1, 2, [10, 12, 10])]),
        ({"pipeline": 2}, [(0, 2, [15, 1, 3]), (1, 2, [15, 2, 3]), (0, 2, [15, 4, 12]), (1, 2, [15, 8, 12])]),
        ({"context": 2}, [(0, 2, [15, 1, 5]), (0, 2, [15, 2, 10]), (1, 2, [15, 4, 5]), (1, 2, [15, 8, 10])]),
        ({"replicate": 2}, [(0, 4, [15, 1, 15]), (1, 4, [15, 2, 15]), (2, 4, [15, 4, 15]), (3, 4, [15, 8, 15])]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_ranks_read_their_rows_and_sum_over_those_that_hold_something_else(
    pool: Any, layout: dict[str, Any], expected: list[Any]
) -> None:
    assert pool(4, _place, layout) == expected


def test_one_process_has_no_group_and_gives_back_what_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    tensor = torch.ones(3)
    for world in (World.single(CPU), World.of_environment(CPU)):
        assert start(world, Layout(data=1)).mesh is None and world.is_first
        assert world.sum(tensor) is tensor and (world.data_rank, world.data_ranks) == (0, 1)
        world.close()
    assert not torch.distributed.is_initialized()


def test_the_launcher_says_who_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    world = World.of_environment(CPU)
    assert (world.rank, world.ranks, world.is_first) == (5, 8, False)
    assert World.of_environment(torch.device("cuda")).device == torch.device("cuda", 1)
