"""The worker processes that tests of many ranks run in."""

from typing import Any

import pytest
import torch
import torch.distributed as dist


def _sum(value: int) -> tuple[int, int, float]:
    total = torch.tensor(float(value + dist.get_rank()))
    dist.all_reduce(total)
    return dist.get_rank(), dist.get_world_size(), total.item()


def _fails(where: int) -> None:
    if dist.get_rank() == where:
        raise ValueError("planted")
    dist.barrier()


def test_every_call_has_a_group_of_its_own(pool: Any) -> None:
    assert pool(2, _sum, 10) == [(0, 2, 21.0), (1, 2, 21.0)]
    assert pool(4, _sum, 1) == [(rank, 4, 10.0) for rank in range(4)]
    assert pool(1, "math:sqrt", 9.0) == [3.0]


def test_a_failing_rank_is_reported_and_the_pool_goes_on(pool: Any) -> None:
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 failed:(.|\n)*planted"):
        pool(2, _fails, 1)
    assert pool(2, _sum, 0)[0] == (0, 2, 1.0)
