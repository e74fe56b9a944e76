"""Learning-rate schedules: at the points that published runs name, and against PyTorch's own schedulers."""

from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from smelt.optim.schedules import factor, learning_rate
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Clock, Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.schedule import WSD, Cosine, DeepSeekV3, MultiStep

SCHEDULES = Path(__file__).parents[2] / "recipes" / "schedules"
TOTAL = 200


def make(train: dict[str, Any], *stages: dict[str, Any]) -> Plan:
    """A plan of one source, learning rate 1 and sequences of 8; one stage of `TOTAL` steps unless given."""
    whole = stages or ({"name": "only", "steps": TOTAL},)
    train = {
        "sequence": 8,
        "batch_tokens": 64,
        "optimizer": {"lr": 1.0},
        "stages": [{"mixture": {"a": 1}, **stage} for stage in whole],
        **train,
    }
    return Plan(Recipe.model_validate({"name": "plan", "dataset": {"shards": {"a": "a"}}, "train": train}))


def rates(plan: Plan) -> list[float]:
    return [learning_rate(plan, step) for step in range(plan.total_steps)]


def by_torch(build: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], steps: int = TOTAL) -> list[float]:
    """Learning rates of a plain PyTorch loop."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def warmed(optimizer: torch.optim.Optimizer, then: lr_scheduler.LRScheduler) -> lr_scheduler.LRScheduler:
    """Ten steps of linear warmup, from a tenth, and then another schedule."""
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9)
    return lr_scheduler.SequentialLR(optimizer, [warmup, then], milestones=[10])


def test_cosine_equals_torch_after_a_warmup() -> None:
    plan = make({"schedule": {"kind": "cosine", "warmup_steps": 10, "min_lr_fraction": 0.1}})
    peer = by_torch(
        lambda optimizer: warmed(optimizer, lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - 10, eta_min=0.1))
    )
    assert rates(plan) == pytest.approx(peer, rel=1e-6)


def test_wsd_equals_torch_with_constant_and_linear_pieces() -> None:
    """OPT-06, the shape: the last 20 % of the steps go in a line to zero."""
    plan = make({"schedule": {"kind": "wsd", "warmup_steps": 0, "decay_fraction": 0.2}})

    def build(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        constant = lr_scheduler.ConstantLR(optimizer, factor=1.0)
        decay = lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=40)
        return lr_scheduler.SequentialLR(optimizer, [constant, decay], milestones=[160])

    assert rates(plan) == pytest.approx(by_torch(build), abs=1e-9)


def test_multi_step_equals_torch() -> None:
    """OPT-07, the shape: 80/10/10 with equal factors at each milestone."""
    plan = make({"schedule": {"kind": "multi_step", "warmup_steps": 0, "factors": [0.3, 0.09]}})
    peer = by_torch(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[160, 180], gamma=0.3))
    assert rates(plan) == pytest.approx(peer)


def steady(schedule: Any, steps: int) -> Clock:
    return Clock(schedule, ((steps, 4096),))


def at(plan: Plan, steps: list[int]) -> list[float]:
    return [learning_rate(plan, step) for step in steps]


def preset(name: str) -> Plan:
    return Plan(load_recipe(SCHEDULES / f"{name}.yaml"))


def test_cosine_of_the_1b_baseline() -> None:
    """OPT-05."""
    plan = preset("cosine-1b")
    assert plan.total_steps == 20_000
    assert at(plan, [0, 999, 2000, 11_000]) == pytest.approx([2.5e-7, 2.5e-4, 5e-4, 2.75e-4])
    end = plan.at(0).clock
    assert 5e-4 * factor(end, 20_000) == pytest.approx(5e-5)


def test_wsd_of_smollm3_is_flat_and_then_linear_to_zero() -> None:
    """OPT-06: 2e-4 flat to step 4,198,000, linear to 0 over 522,000, 4,720,000 in all; DATA-03, the stages' ends."""
    plan = preset("wsd-smollm3")
    assert plan.total_steps == 4_720_000
    assert at(plan, [2000, 4_197_999, 4_198_000, 4_459_000]) == pytest.approx([2e-4, 2e-4, 2e-4, 1e-4])
    assert at(plan, [4_198_001])[0] < 2e-4
    assert factor(plan.at(0).clock, 4_720_000) == 0
    ends = [segment.end for segment in plan.segments]
    assert ends == [3_450_000, 4_198_000, 4_720_000]
    assert [round(plan.tokens_before(end) / 1e12, 2) for end in ends] == [8.14, 9.90, 11.14]


@pytest.mark.parametrize(("name", "share"), [("wsd-10", 0.1), ("wsd-20", 0.2)])
def test_wsd_decays_over_the_last_tenth_or_fifth(name: str, share: float) -> None:
    """OPT-06: the 10 % and 20 % variants."""
    plan = preset(name)
    begin = round(plan.total_steps * (1 - share))
    peak = plan.at(0).train.optimizer.lr
    middle = (begin + plan.total_steps) // 2
    assert at(plan, [begin - 1, begin, middle]) == pytest.approx([peak, peak, peak / 2])
    assert at(plan, [begin + 1])[0] < peak


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("multi-step-80-10-10", (0.8, 0.9)),
        ("multi-step-70-15-15", (0.7, 0.85)),
        ("multi-step-60-20-20", (0.6, 0.8)),
        ("multi-step-60-30-10", (0.6, 0.9)),
    ],
)
def test_multi_step_falls_to_a_third_and_a_tenth(name: str, shares: tuple[float, float]) -> None:
    """OPT-07."""
    plan = preset(name)
    peak = plan.at(0).train.optimizer.lr
    first, second = (round(share * plan.total_steps) for share in shares)
    wanted = [peak, 0.316 * peak, 0.316 * peak, 0.1 * peak, 0.1 * peak]
    assert at(plan, [first - 1, first, second - 1, second, plan.total_steps - 1]) == pytest.approx(wanted)


def test_deepseek_v3s_schedule_at_the_tokens_its_report_names() -> None:
    """OPT-07, OPT-14: 2.2e-4 until 10T tokens, cosine to 2.2e-5 over 4.3T, that for 333B and 7.3e-6 for 167B, with
    batches of 12.6M tokens for 469B and of 62.9M then."""
    plan = preset("deepseek-v3")
    assert [segment.batch_tokens for segment in plan.segments] == [12_582_912, 62_914_560]
    assert plan.tokens_before(plan.total_steps) == pytest.approx(14.8e12, rel=1e-5)

    def after(tokens: float) -> int:
        first = plan.segments[1]
        return first.first + round((tokens - first.tokens) / first.batch_tokens)

    points = [after(tokens) for tokens in (9.999e12, 12.15e12, 14.31e12, 14.62e12, 14.65e12)]
    assert at(plan, points) == pytest.approx([2.2e-4, 1.21e-4, 2.2e-5, 2.2e-5, 7.3e-6], rel=2e-3)


def test_the_cosine_from_67_to_97_percent() -> None:
    """OPT-07: constant to 67 %, half a cosine to 97 %, a short constant, and a last step down."""
    clock = steady(DeepSeekV3(kind="deepseek_v3", warmup_steps=0, floor=0.1, last=0.03), 1000)
    shares = [factor(clock, step) for step in (0, 669, 670, 820, 970, 989, 990, 999)]
    assert shares == pytest.approx([1, 1, 1, 0.55, 0.1, 0.1, 0.03, 0.03])


def test_decay_by_the_root_falls_as_one_minus_the_root_of_what_is_done() -> None:
    clock = steady(WSD(warmup_steps=0, decay_steps=100, decay="sqrt", min_lr_fraction=0.1), 1000)
    shares = [factor(clock, 900 + done) for done in (0, 25, 64, 100)]
    assert shares == pytest.approx([0.1 + 0.9 * (1 - sqrt(done / 100)) for done in (0, 25, 64, 100)])


def test_milestones_may_be_counted_in_steps() -> None:
    clock = steady(MultiStep(kind="multi_step", warmup_steps=2, milestones=(30, 50), factors=(0.5, 0.25)), 100)
    assert [factor(clock, step) for step in (0, 1, 29, 30, 49, 50)] == [0.5, 1, 1, 0.5, 0.5, 0.25]


def test_warmup_ends_at_the_peak_and_a_schedule_without_decay_stays_there() -> None:
    clock = steady(WSD(warmup_steps=4, decay_fraction=0.0), 8)
    assert [factor(clock, step) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_shares_of_a_schedule_are_of_tokens_where_batches_vary() -> None:
    """A quarter of the steps at a quarter of the batch: half a cosine is over when half the tokens are."""
    clock = Clock(Cosine(kind="cosine", warmup_steps=0, min_lr_fraction=0.0), ((40, 16), (30, 64)))
    assert factor(clock, 50) == pytest.approx(0.5)


def test_a_stage_with_its_own_schedule_restarts_the_clock_and_the_others_share_the_runs() -> None:
    """DESIGN: a stage with its own schedule restarts the clock; without one the run's schedule goes on."""
    plan = make(
        {"schedule": {"kind": "wsd", "warmup_steps": 2, "decay_fraction": 0.5}},
        {"name": "a", "steps": 4},
        {"name": "long", "steps": 3, "schedule": {"kind": "wsd", "warmup_steps": 3}},
        {"name": "b", "steps": 4},
    )
    shared = steady(plan.at(0).train.schedule, 8)
    assert at(plan, [0, 1, 2, 3, 7, 8, 9, 10]) == [factor(shared, step) for step in range(8)]
    assert at(plan, [4, 5, 6]) == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_stage_may_set_the_peak_that_its_own_schedule_warms_up_to_again() -> None:
    """OPT-13, the schedule's side: the learning rate is warmed up anew for a stage, to another peak."""
    plan = make(
        {"schedule": {"kind": "wsd", "warmup_steps": 0, "decay_fraction": 0}},
        {"name": "base", "steps": 4},
        {
            "name": "larger",
            "steps": 6,
            "schedule": {"kind": "wsd", "warmup_steps": 4, "decay_fraction": 0},
            "set": {"train.optimizer.lr": 2.0},
        },
    )
    assert rates(plan) == [1, 1, 1, 1, 0.5, 1, 1.5, 2, 2, 2]


def test_four_times_the_batch_has_twice_the_learning_rate() -> None:
    """OPT-11: LR * sqrt(k)."""
    rungs = [{"batch_tokens": 64, "until": 640}]
    plan = make({"batch_tokens": 256, "batch_warmup": {"rungs": rungs}, "schedule": {"kind": "wsd", "warmup_steps": 0}})
    assert at(plan, [9, 10]) == [0.5, 1.0]
    unscaled = make(
        {
            "batch_tokens": 256,
            "batch_warmup": {"rungs": rungs, "scale_lr": "none"},
            "schedule": {"kind": "wsd", "warmup_steps": 0},
        }
    )
    assert at(unscaled, [9, 10]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"kind": "multi_step", "milestones": [0.9, 0.8]}, "each must be later than the one before"),
        ({"kind": "multi_step", "milestones": [0.8, 900]}, "all as shares of the tokens, or all in steps"),
        ({"kind": "multi_step", "factors": [0.1]}, "factors needs one number a milestone, got 1 for 2"),
        ({"kind": "deepseek_v3", "constant_until": 0.98}, "each must be later than the one before"),
        ({"kind": "wsd", "decay_fraction": 0.2, "decay_steps": 5}, "give decay_fraction or decay_steps, not both"),
    ],
)
def test_schedules_that_cannot_be_are_refused(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({"schedule": schedule})
