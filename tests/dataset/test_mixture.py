"""Mixtures: exact in every period, within one window in every prefix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.dataset.mixture import EXACT, PERIOD, Mixture, window_counts

weights = st.lists(st.integers(0, 300), min_size=1, max_size=9).filter(any)


@given(weights)
def test_every_prefix_is_within_one_window_of_the_weights(parts: list[int]) -> None:
    mixture = Mixture(parts)
    source, _ = mixture.locate(np.arange(2 * mixture.period))
    had = np.cumsum(source[:, None] == np.arange(len(parts)), axis=0)
    due = np.arange(1, len(source) + 1)[:, None] * (np.array(parts) / sum(parts))
    assert np.abs(had - due).max() < 1 + 1e-9


@given(weights, st.integers(0, 10**12))
def test_every_aligned_period_is_exact(parts: list[int], period: int) -> None:
    mixture = Mixture(parts)
    source, _ = mixture.locate(period * mixture.period + np.arange(mixture.period))
    share = np.bincount(source, minlength=len(parts)) / mixture.period
    assert share == pytest.approx(np.array(parts) / sum(parts), abs=1e-12)


@given(weights)
def test_each_source_is_read_in_order_without_gaps(parts: list[int]) -> None:
    mixture = Mixture(parts)
    source, nth = mixture.locate(np.arange(2 * mixture.period + mixture.period // 3))
    for index in range(len(parts)):
        assert nth[source == index].tolist() == list(range((source == index).sum()))


@given(weights, st.integers(0, 5000))
def test_drawn_counts_what_locate_gives(parts: list[int], windows: int) -> None:
    mixture = Mixture(parts)
    source, _ = mixture.locate(np.arange(windows))
    assert mixture.drawn(windows).tolist() == np.bincount(source, minlength=len(parts)).tolist()


@pytest.mark.parametrize(
    ("asked", "counts"),
    [
        ([0.85, 0.12, 0.03], [85, 12, 3]),
        ([1, 0, 1], [1, 0, 1]),
        ([1 / 3, 2 / 3], [1, 2]),
        ([1 / 7, 2 / 7, 4 / 7], [1, 2, 4]),
        ([3.0], [1]),
        ([0.3333, 0.6667], [3333, 6667]),
        ([1e300, 1e300], [1, 1]),
    ],
)
def test_the_period_is_the_smallest_that_meets_the_weights(asked: list[float], counts: list[int]) -> None:
    assert window_counts(asked).tolist() == counts


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
def test_other_weights_are_met_to_less_than_one_window_a_period(asked: list[float]) -> None:
    counts = window_counts(asked)
    period = counts.sum()
    assert period <= EXACT or period == PERIOD
    assert np.abs(counts / period - np.array(asked) / sum(asked)).max() < 1 / period
