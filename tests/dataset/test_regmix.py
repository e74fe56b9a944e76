"""Proposals from small runs: drawn mixtures are mixtures; regression finds better ones without believing noise."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.regmix import draw_mixtures, propose
from smelt.errors import InputError

BASE = {"web": 0.6, "code": 0.25, "math": 0.15}


def loss(mixture: Mapping[str, float]) -> float:
    """Each source helps less and less; the best mixture is about 40 % web, 28 % code, 32 % math, and loses 3.307."""
    powers = {"web": (1.0, 0.3), "code": (0.8, 0.25), "math": (0.6, 0.35)}
    return sum(scale * (mixture.get(name, 0) + 1e-3) ** -power for name, (scale, power) in powers.items())


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.integers(2, 40), st.integers(0, 1000))
def test_drawn_mixtures_are_mixtures_around_the_base(weights: list[float], count: int, seed: int) -> None:
    base = {str(index): weight for index, weight in enumerate(weights)}
    drawn = draw_mixtures(base, count, seed)
    assert len(drawn) == count and drawn == draw_mixtures(base, count, seed)
    for mixture in drawn:
        assert sum(round(10_000 * share) for share in mixture.values()) == 10_000
        assert set(mixture) == set(base) and min(mixture.values()) > 0
    assert [*drawn[0].values()] == pytest.approx(np.array(weights) / sum(weights), abs=5e-4)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_proposal_is_near_the_best_mixture(noise: float) -> None:
    draw = np.random.default_rng(0)
    mixtures = draw_mixtures(BASE, 32, 1)
    found = propose(mixtures, [loss(each) + noise * draw.normal() for each in mixtures], BASE)
    assert loss(found.mixture) < 3.36 < 3.45 < loss(BASE)
    assert found.sure and found.rank > 0.9 and found.runs == 32
    assert found.foreseen == pytest.approx(loss(found.mixture), abs=0.1)
    assert sum(found.mixture.values()) == pytest.approx(1)


def test_limits_hold() -> None:
    mixtures = draw_mixtures(BASE, 32, 1)
    found = propose(mixtures, [loss(each) for each in mixtures], BASE, {"math": 0.2, "code": 0.2})
    assert found.mixture["math"] <= 0.2 and found.mixture["code"] <= 0.2
    assert found.mixture["web"] >= 0.6
    with pytest.raises(InputError, match="leave no mixtures to choose from; raise the one of 'math'"):
        propose(mixtures, [loss(each) for each in mixtures], BASE, {"web": 0.02, "code": 0.02, "math": 0.01})


def test_a_limit_of_an_unknown_source_is_named() -> None:
    mixtures = draw_mixtures(BASE, 32, 1)
    with pytest.raises(InputError, match=r"--most: unknown source 'maths' \(known sources: web, code, math\)"):
        propose(mixtures, [loss(each) for each in mixtures], BASE, {"maths": 0.2})


def test_results_that_are_noise_are_not_believed() -> None:
    draw = np.random.default_rng(3)
    mixtures = draw_mixtures(BASE, 24, 2)
    assert not propose(mixtures, draw.normal(size=24).tolist(), BASE).sure


def test_a_handful_of_runs_is_refused() -> None:
    with pytest.raises(InputError, match="9 small runs cannot be regressed"):
        propose(draw_mixtures(BASE, 9, 0), [1.0] * 9, BASE)
