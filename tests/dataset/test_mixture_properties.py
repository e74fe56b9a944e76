"""The data order under mixtures that change by stages, ramps and caps: shares, repeats, ranks, resume, for any plan."""

from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.order import DataOrder
from smelt.recipe.mixtures.weights import shares

NAMES = ("a", "b", "c")
plans = settings(max_examples=40)


@st.composite
def stage_lists(draw: Any, sequences: tuple[int, ...] = (4, 8, 16)) -> list[dict[str, Any]]:
    """One to three stages with mixtures, sequences and ramps of their own."""
    made = []
    for index in range(draw(st.integers(1, 3))):
        weights = draw(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any))
        stage: dict[str, Any] = {
            "name": f"stage-{index}",
            "steps": draw(st.integers(1, 30)),
            "mixture": dict(zip(NAMES, weights, strict=True)),
            "sequence": draw(st.sampled_from(sequences)),
        }
        if index and draw(st.booleans()):
            stage["ramp"] = {"steps": draw(st.integers(1, 20)), "rungs": draw(st.integers(1, 4))}
        made.append(stage)
    return made


counts = st.fixed_dictionaries({name: st.integers(16, 3000) for name in NAMES})
seeds = st.integers(0, 2**62)


def drawn(order: DataOrder, step: int) -> list[tuple[int, int, int]]:
    """(source, first token, epoch) of each window of a step."""
    windows = order.windows(step)
    return list(zip(*(part.tolist() for part in windows[:3]), strict=True))


@plans
@given(stage_lists(), counts, seeds)
def test_shares_are_exact_to_a_window_in_every_prefix_of_every_mixture(
    make_recipe: Any, stages: Any, tokens: Any, seed: int
) -> None:
    """DATA-02: in all that is drawn from one mixture, a source is never a window away from its weight."""
    order = DataOrder(make_recipe(stages, NAMES, seed=seed), tokens)
    mixtures = {segment.draw: segment.mixture for segment in order.plan.segments}
    sources: dict[int, list[int]] = defaultdict(list)
    for step in range(order.plan.total_steps):
        sources[order.plan.at(step).draw] += order.windows(step).sources.tolist()
    for draw, seen in sources.items():
        weights = shares(mixtures[draw])
        had = np.cumsum(np.array(seen)[:, None] == np.arange(len(NAMES)), axis=0)
        due = np.arange(1, len(seen) + 1)[:, None] * [weights.get(name, 0.0) for name in NAMES]
        assert np.abs(had - due).max() < 1 + 1e-6


@plans
@given(stage_lists(), counts, seeds)
def test_nothing_comes_twice_in_an_epoch_whatever_the_stages(
    make_recipe: Any, stages: Any, tokens: Any, seed: int
) -> None:
    """DATA-06: windows of one epoch share no token, across stages, ramps and sequences; epochs follow one another."""
    order = DataOrder(make_recipe(stages, NAMES, seed=seed), tokens)
    seen: dict[tuple[int, int], set[int]] = defaultdict(set)
    newest = dict.fromkeys(range(len(NAMES)), 0)
    for step in range(order.plan.total_steps):
        sequence = order.plan.at(step).sequence
        for source, offset, epoch in drawn(order, step):
            window = set(range(offset, offset + sequence))
            assert not window & seen[source, epoch]
            assert newest[source] <= epoch and max(window) < tokens[NAMES[source]]
            seen[source, epoch] |= window
            newest[source] = epoch


@plans
@given(stage_lists(sequences=(8,)), counts, seeds)
def test_a_source_is_read_to_its_end_before_it_repeats(make_recipe: Any, stages: Any, tokens: Any, seed: int) -> None:
    """DATA-02: at one sequence, an epoch begins when the one before has given every whole window it holds."""
    order = DataOrder(make_recipe(stages, NAMES, seed=seed), tokens)
    read: dict[tuple[int, int], int] = defaultdict(int)
    for step in range(order.plan.total_steps):
        for source, _, epoch in drawn(order, step):
            whole, tail = divmod(tokens[NAMES[source]], 32)
            assert not epoch or read[source, epoch - 1] == whole * 4 + tail // 8
            read[source, epoch] += 1


@plans
@given(stage_lists(), counts, seeds, st.sampled_from([1, 2, 3, 8]))
def test_every_number_of_ranks_reads_the_same_windows_in_the_same_order(
    make_recipe: Any, stages: Any, tokens: Any, seed: int, ranks: int
) -> None:
    """DATA-02: shares and order are those of the plan for any world size."""
    order = DataOrder(make_recipe(stages, NAMES, seed=seed), tokens)
    for step in range(order.plan.total_steps):
        parts = [order.windows(step, rank, ranks) for rank in range(ranks)]
        for whole, *joined in zip(order.windows(step)[:3], *(part[:3] for part in parts), strict=True):
            assert np.concatenate(joined).tolist() == whole.tolist()


@plans
@given(stage_lists(), counts, seeds, st.data())
def test_a_run_that_goes_on_reads_what_it_would_have_read(
    make_recipe: Any, stages: Any, tokens: Any, seed: int, data: Any
) -> None:
    """DATA-03, DATA-08: from any step on, and with later stages replanned, across stage boundaries and ramps."""
    recipe = make_recipe(stages, NAMES, seed=seed)
    order = DataOrder(recipe, tokens)
    step = data.draw(st.integers(0, order.plan.total_steps - 1))
    resumed = DataOrder(recipe, tokens)
    assert drawn(resumed, step) == drawn(order, step)
    assert resumed.consumed(step) == order.consumed(step)
    longer = [*stages[:-1], {**stages[-1], "steps": stages[-1]["steps"] + 7}]
    longer.append({"name": "more", "steps": 5, "mixture": {"b": 1}})
    extended = DataOrder(make_recipe(longer, NAMES, seed=seed), tokens)
    assert [drawn(extended, each) for each in range(step + 1)] == [drawn(order, each) for each in range(step + 1)]


@plans
@given(stage_lists(), counts, seeds)
def test_what_is_counted_by_source_is_what_was_read(make_recipe: Any, stages: Any, tokens: Any, seed: int) -> None:
    """DATA-02: the counts that metrics and checkpoints carry add up to the tokens trained on, source by source."""
    order = DataOrder(make_recipe(stages, NAMES, seed=seed), tokens)
    read = dict.fromkeys(NAMES, 0)
    for step in range(order.plan.total_steps):
        assert {name: each["tokens"] for name, each in order.consumed(step).items()} == read
        for source, _, _ in drawn(order, step):
            read[NAMES[source]] += order.plan.at(step).sequence
    assert sum(read.values()) == order.plan.tokens_before(order.plan.total_steps)


@plans
@given(stage_lists(sequences=(8,)), seeds, st.integers(60, 2000))
def test_a_capped_source_stays_within_its_cap(make_recipe: Any, stages: Any, seed: int, cap: int) -> None:
    """A cap in tokens holds to a window of each mixture, and is used up where the plan asked for more."""
    plenty = {**stages[0], "name": "plenty", "mixture": {"b": 1, "c": 1}}
    free = [{**stage, "mixture": {**stage["mixture"], "b": stage["mixture"]["b"] + 1}} for stage in stages]
    recipe = make_recipe([plenty, *free], NAMES, seed=seed, caps={"a": {"tokens": cap}})
    order = DataOrder(recipe, dict.fromkeys(NAMES, 10**6))
    uncapped = DataOrder(make_recipe([plenty, *free], NAMES, seed=seed), dict.fromkeys(NAMES, 10**6))
    taken, asked = (each.consumed(each.plan.total_steps)["a"]["tokens"] for each in (order, uncapped))
    slack = 8 * len({segment.draw for segment in order.plan.segments})
    assert taken <= cap + slack
    assert taken >= min(asked, cap) - slack - 0.02 * cap


def test_a_million_sequences_have_the_shares_of_their_weights(make_recipe: Any) -> None:
    """DATA-02: within three sigma of independent draws, for SmolLM3's largest and smallest weights, any world size."""
    weights = {"a": 0.37, "b": 0.0005, "c": 0.6295}
    stages = [{"name": "all", "steps": 15_625, "mixture": weights}]
    order = DataOrder(make_recipe(stages, NAMES, batch_tokens=512), dict.fromkeys(NAMES, 10**9))
    windows = {name: each["windows"] for name, each in order.consumed(15_625).items()}
    assert sum(windows.values()) == 1_000_000
    for name, weight in weights.items():
        assert abs(windows[name] / 1e6 - weight) < 3 * np.sqrt(weight * (1 - weight) / 1e6)
    sampled = np.array([order.windows(step, rank, 8).sources for step in range(0, 15_625, 625) for rank in range(8)])
    assert abs((sampled == 0).mean() - 0.37) < 0.02
