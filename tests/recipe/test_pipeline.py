"""How layers and batches are dealt out to the processes of a pipeline, and what is refused."""

from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.errors import InputError
from smelt.recipe.pipeline import KINDS, check_pipeline, micro_batches, split, stage_layers, stages_of
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import Model

SCHEDULES = sorted(KINDS)


def model(**changes: Any) -> Model:
    shape = {"hidden": 64, "layers": 8, "attention": {"heads": 4, "kv_heads": 2}, "feedforward": {"width": 128}}
    return Model.model_validate({**shape, **changes})


def refusal(layout: dict[str, Any], of: Model | None = None, **infra: Any) -> str:
    settings = Infra.model_validate({"layout": layout, **infra})
    with pytest.raises(InputError) as caught:
        check_pipeline(of or model(), settings.layout, settings)
    return str(caught.value)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.data())
def test_the_heaviest_part_of_a_split_is_nearly_as_light_as_any_split_has_it(costs: list[int], data: Any) -> None:
    """Against all splits."""
    parts, last = data.draw(st.integers(1, len(costs))), data.draw(st.integers(0, 20))
    cuts = split(costs, parts, last)
    assert [each.start for each in cuts] == [0, *(each.stop for each in cuts[:-1])] and cuts[-1].stop == len(costs)
    assert all(len(each) >= 1 for each in cuts) and len(cuts) == parts

    def heaviest(places: tuple[int, ...]) -> int:
        sums = [sum(costs[low:high]) for low, high in pairwise((0, *places, len(costs)))]
        return max(*sums[:-1], sums[-1] + last) if len(sums) > 1 else sums[0] + last

    best = min(map(heaviest, combinations(range(1, len(costs)), parts - 1)))
    assert heaviest(tuple(each.start for each in cuts[1:])) <= best * parts ** (1 / 8)


def test_a_stage_with_a_large_head_gets_fewer_layers() -> None:
    assert [len(each) for each in stage_layers(model(), 64, 2)] == [4, 4]
    assert [len(each) for each in stage_layers(model(), 128_256, 2)] == [7, 1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_stage_is_held_by_the_process_that_torch_expects(schedule: str) -> None:
    from torch.distributed.pipelining._utils import generate_stage_to_rank_mapping

    stages = KINDS[schedule].most or 3
    place = generate_stage_to_rank_mapping(4, 4 * stages, style="v" if KINDS[schedule].folded else "loop")
    for rank in range(4):
        assert stages_of(schedule, 4, stages, rank) == [stage for stage in range(4 * stages) if place[stage] == rank]


@given(st.integers(1, 60), st.integers(1, 12), st.sampled_from(SCHEDULES), st.integers(2, 5))
def test_micro_batches_are_equal_small_enough_and_as_few_as_can_be(
    rows: int, most: int, schedule: str, ranks: int
) -> None:
    def fits(count: int) -> bool:
        enough = count >= ranks * KINDS[schedule].micro_batches
        whole = not KINDS[schedule].rounds or count % (count // ranks) == 0
        return rows % count == 0 and rows // count <= most and enough and whole

    fitting = [count for count in range(ranks, rows + 1) if fits(count)]
    if fitting:
        assert micro_batches(rows, most, schedule, ranks) == fitting[0]
    else:
        with pytest.raises(InputError, match=r"infra\.layout\.pipeline: .*micro-batches"):
            micro_batches(rows, most, schedule, ranks)


def test_more_stages_than_layers_are_refused() -> None:
    assert "8 x 2 stages need at least as many layers" in refusal(
        {"pipeline": 8, "stages": 2, "schedule": "interleaved"}
    )


def test_a_schedule_says_how_many_stages_a_process_needs() -> None:
    assert "'1f1b' needs 1 on each process, not 2" in refusal({"pipeline": 2, "stages": 2})
    assert "'interleaved' needs 2 or more" in refusal({"pipeline": 2, "schedule": "interleaved"})
    assert "'zbv' needs 2 on each process, not 3" in refusal({"pipeline": 2, "stages": 3, "schedule": "zbv"})
    assert "but pipeline is 1" in refusal({"stages": 2})


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if KINDS[name].splits])
def test_what_a_backward_pass_in_two_parts_gets_wrong_is_refused(schedule: str) -> None:
    layout = {"pipeline": 2, "stages": 2, "schedule": schedule}
    assert refusal({**layout, "zero": 3}).startswith("infra.layout.zero: 3")
    assert refusal(layout, recompute="selective").startswith("infra.recompute: selective")
    assert refusal(layout, compile=True).startswith("infra.compile: true")
    assert refusal(layout, model(multi_token={"depth": 1})).startswith("model.multi_token")
    settings = Infra.model_validate({"layout": layout, "recompute": "full"})
    check_pipeline(model(multi_token={"depth": 1}, tie_embeddings=False), settings.layout, settings)
