"""Learning-rate schedules at the points that published runs name."""

import pytest

from smelt.optim.schedules import factor, learning_rate
from smelt.recipe.sections.train import WSD, Cosine, Train


def test_cosine_of_the_1b_baseline() -> None:
    """OPT-05."""
    schedule = Cosine(kind="cosine", warmup_steps=2000, min_lr_fraction=0.1)
    rates = [5e-4 * factor(schedule, step, 20_000) for step in (999, 2000, 11_000, 20_000)]
    assert rates == pytest.approx([2.5e-4, 5e-4, 2.75e-4, 5e-5])


def test_wsd_of_smollm3_is_flat_and_then_linear_to_zero() -> None:
    """OPT-06."""
    schedule = WSD(warmup_steps=2000, decay_fraction=522_000 / 4_720_000)
    rates = [2e-4 * factor(schedule, step, 4_720_000) for step in (2000, 4_197_999, 4_459_000, 4_720_000)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 0.0])


def test_warmup_ends_at_the_peak_and_a_schedule_without_decay_stays_there() -> None:
    schedule = WSD(warmup_steps=4, decay_fraction=0.0)
    assert [factor(schedule, step, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_a_stage_with_its_own_schedule_restarts_the_clock_and_the_others_share_the_runs() -> None:
    """DESIGN: a stage with its own schedule restarts the clock; without one the run's schedule goes on."""
    train = Train.model_validate(
        {
            "sequence": 8,
            "batch_tokens": 8,
            "optimizer": {"lr": 1.0},
            "schedule": {"kind": "wsd", "warmup_steps": 2, "decay_fraction": 0.5},
            "stages": [
                {"name": "a", "steps": 4, "mixture": {"x": 1}},
                {"name": "long", "steps": 3, "mixture": {"x": 1}, "schedule": {"kind": "wsd", "warmup_steps": 3}},
                {"name": "b", "steps": 4, "mixture": {"x": 1}},
            ],
        }
    )
    shared = [learning_rate(train, step) for step in (0, 1, 2, 3, 7, 8, 9, 10)]
    assert shared == [factor(train.schedule, step, 8) for step in range(8)]
    assert [learning_rate(train, step) for step in (4, 5, 6)] == pytest.approx([1 / 3, 2 / 3, 1])
