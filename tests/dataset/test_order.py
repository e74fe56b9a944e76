"""The data order: a function of recipe, seed and step that visits every token once an epoch."""

import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.epochs import Layout
from smelt.dataset.order import DataOrder
from smelt.errors import InputError

COUNTS = {"a": 5000, "b": 777}


def one_stage(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "main", "steps": 1000, "mixture": {"a": 3, "b": 1}, **fields}]


def drawn(order: DataOrder, steps: range) -> list[tuple[int, int, int, int]]:
    """(source, offset, epoch, sequence) of every window of the steps."""
    return [
        (*row, windows.sequence)
        for windows in map(order.windows, steps)
        for row in zip(windows.sources.tolist(), windows.offsets.tolist(), windows.epochs.tolist(), strict=True)
    ]


def of_source(windows: list[tuple[int, int, int, int]], source: int) -> list[tuple[int, int]]:
    return [(epoch, offset) for which, offset, epoch, _ in windows if which == source]


@settings(max_examples=40)
@given(
    tokens=st.integers(8, 2000),
    spans=st.sampled_from([8, 16, 64, 1024]),
    sequence=st.sampled_from([4, 8]),
    seed=st.integers(0, 99),
)
def test_each_token_comes_once_an_epoch(make_recipe: Any, tokens: int, spans: int, sequence: int, seed: int) -> None:
    """ARCH-06: every window once an epoch; at most one window's worth of tokens is left out, and counted."""
    recipe = make_recipe(
        [{"name": "s", "steps": 1, "mixture": {"a": 1}}],
        ["a"],
        sequence=sequence,
        batch_tokens=sequence,
        span=spans,
        seed=seed,
    )
    order = DataOrder(recipe, {"a": tokens})
    each = tokens // spans * (spans // sequence) + tokens % spans // sequence
    windows = drawn(order, range(2 * each))
    for epoch in (0, 1):
        offsets = [offset for which, offset in of_source(windows, 0) if which == epoch]
        assert len(offsets) == each
        seen = np.sort((np.array(offsets)[:, None] + np.arange(sequence)).ravel())
        assert (np.diff(seen) > 0).all() and seen[0] == 0 and seen[-1] < tokens
    assert tokens - each * sequence < sequence
    assert order.consumed(2 * each)["a"] == {
        "windows": 2 * each, "tokens": 2 * each * sequence, "epochs": 2.0, "skipped": 2 * (tokens - each * sequence),
    }  # fmt: skip


def test_epochs_and_seeds_differ_and_repeat_themselves(make_recipe: Any) -> None:
    """DATA-06: the shuffle acts on windows, differs by epoch and seed, and is reproducible."""
    runs = []
    for seed in (0, 1, 0):
        recipe = make_recipe([{"name": "s", "steps": 9, "mixture": {"a": 1}}], ["a"], batch_tokens=8, seed=seed)
        windows = of_source(drawn(DataOrder(recipe, {"a": 4000}), range(1000)), 0)
        runs.append([tuple(offset for _, offset in windows[first : first + 500]) for first in (0, 500)])
    assert runs[0] == runs[2]
    assert len({order for run in runs[:2] for order in run}) == 4
    assert all(sorted(order) == list(range(0, 4000, 8)) for run in runs for order in run)
    assert all((np.diff(order) == 8).mean() < 0.1 for run in runs for order in run)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 11])
def test_ranks_join_to_the_global_batch(make_recipe: Any, ranks: int) -> None:
    order = DataOrder(make_recipe(one_stage()), COUNTS)
    for step in (0, 5, 12_345):
        whole = order.windows(step)
        parts = [order.windows(step, rank, ranks) for rank in range(ranks)]
        for field in ("sources", "offsets", "epochs"):
            joined = np.concatenate([getattr(part, field) for part in parts])
            assert joined.tolist() == getattr(whole, field).tolist()
        sizes = [len(part.sources) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_the_batch_size_cuts_but_does_not_reorder(make_recipe: Any) -> None:
    small = DataOrder(make_recipe(one_stage(), batch_tokens=32), COUNTS)
    large = DataOrder(make_recipe(one_stage(), batch_tokens=128), COUNTS)
    assert drawn(small, range(40)) == drawn(large, range(10))


def test_planned_lengths_of_this_and_later_stages_change_nothing(make_recipe: Any) -> None:
    short = [*one_stage(steps=20), {"name": "end", "steps": 5, "mixture": {"b": 1}, "sequence": 16}]
    long = one_stage(steps=10**9)
    orders = [DataOrder(make_recipe(stages), COUNTS) for stages in (short, long)]
    assert drawn(orders[0], range(20)) == drawn(orders[1], range(20))


def test_sources_do_not_disturb_each_other(make_recipe: Any) -> None:
    """A source's own order stays when another is added, and when the recipe lists them otherwise."""
    one = DataOrder(make_recipe([{"name": "s", "steps": 9, "mixture": {"a": 1}}], ["a"]), COUNTS)
    two = DataOrder(make_recipe(one_stage(), ["b", "a"]), COUNTS)
    alone, together = of_source(drawn(one, range(50)), 0), of_source(drawn(two, range(50)), 1)
    assert len(together) > 100 and alone[: len(together)] == together


def test_proportions_hold_across_steps(make_recipe: Any) -> None:
    """DATA-02: the share of each source lies within one window of its weight after any number of steps."""
    order = DataOrder(make_recipe(one_stage(mixture={"a": 0.85, "b": 0.15})), COUNTS)
    for steps in (1, 7, 100, 125_000):
        used = order.consumed(steps)
        assert abs(used["a"]["windows"] - 0.85 * steps * 8) < 1
        assert used["a"]["windows"] + used["b"]["windows"] == steps * 8


def test_cursors_run_on_across_stages(make_recipe: Any) -> None:
    stages = [
        {"name": "one", "steps": 13, "mixture": {"a": 0.7, "b": 0.3}},
        {"name": "two", "steps": 11, "mixture": {"a": 1}},
        {"name": "three", "steps": 40, "mixture": {"a": 1, "b": 2}},
    ]
    order = DataOrder(make_recipe(stages), COUNTS)
    windows = drawn(order, range(64))
    for source, name in enumerate(COUNTS):
        alone = DataOrder(make_recipe([{"name": "s", "steps": 1, "mixture": {name: 1}}]), COUNTS)
        mine = of_source(windows, source)
        assert mine == of_source(drawn(alone, range(64)), source)[: len(mine)]
    assert order.windows(13).sources.max() == 0


def test_stages_switch_at_their_exact_steps(make_recipe: Any) -> None:
    """DATA-03: at the published steps of a 3B run's three stages."""
    firsts = [("one", 3_450_000, {"a": 1}), ("two", 748_000, {"b": 1}), ("three", 522_000, {"a": 1})]
    stages = [{"name": name, "steps": steps, "mixture": mixture} for name, steps, mixture in firsts]
    order = DataOrder(make_recipe(stages), COUNTS)
    for step, source in [(3_449_999, 0), (3_450_000, 1), (4_197_999, 1), (4_198_000, 0), (4_719_999, 0)]:
        assert set(order.windows(step).sources.tolist()) == {source}


@settings(max_examples=60)
@given(
    tokens=st.integers(64, 20_000),
    lengths=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    sequences=st.lists(st.sampled_from([4, 8, 16, 32, 64]), min_size=4, max_size=4),
)
def test_a_change_of_sequence_skips_to_the_next_group(
    make_recipe: Any, tokens: int, lengths: list[int], sequences: list[int]
) -> None:
    """No token comes twice in an epoch over changes of sequence, and `consumed` counts what was passed over."""
    stages = [
        {"name": str(i), "steps": steps, "mixture": {"a": 1}, "sequence": sequence}
        for i, (steps, sequence) in enumerate(zip(lengths, sequences, strict=False))
    ]
    order = DataOrder(make_recipe(stages, ["a"], batch_tokens=64, span=128), {"a": tokens})
    windows = drawn(order, range(sum(lengths)))
    seen: Counter[tuple[int, int]] = Counter()
    for _, offset, epoch, sequence in windows:
        assert offset % sequence == 0 and offset + sequence <= tokens
        seen.update((epoch, offset + place) for place in range(sequence))
    assert max(seen.values()) == 1
    assert [epoch for _, _, epoch, _ in windows] == sorted(epoch for _, _, epoch, _ in windows)
    used = order.consumed(sum(lengths))["a"]
    assert used["tokens"] == len(seen) == 64 * sum(lengths)
    group = Layout(tokens, 128).group * 128
    assert 0 <= used["skipped"] < (len(lengths) - 1) * group + (used["epochs"] + 1) * 64
    assert used["epochs"] * tokens == pytest.approx(used["tokens"] + used["skipped"])
    assert used["epochs"] >= windows[-1][2]


def test_nothing_is_skipped_where_groups_end(make_recipe: Any) -> None:
    stages = [
        {"name": "short", "steps": 8, "mixture": {"a": 1}},
        {"name": "long", "steps": 8, "mixture": {"a": 1}, "sequence": 16},
    ]
    order = DataOrder(make_recipe(stages, ["a"], batch_tokens=32, span=32), {"a": 512})
    assert order.consumed(16)["a"] == {"windows": 48, "tokens": 512, "epochs": 1.0, "skipped": 0}


def test_a_stage_without_a_source_leaves_its_cursor(make_recipe: Any) -> None:
    stages = [
        {"name": "one", "steps": 3, "mixture": {"a": 1, "b": 1}},
        {"name": "two", "steps": 4, "mixture": {"a": 1, "b": 0}, "sequence": 16},
        {"name": "three", "steps": 3, "mixture": {"b": 1}},
    ]
    order = DataOrder(make_recipe(stages), COUNTS)
    alone = DataOrder(make_recipe([{"name": "s", "steps": 1, "mixture": {"b": 1}}]), COUNTS)
    mine = of_source(drawn(order, range(10)), 1)
    assert mine == of_source(drawn(alone, range(10)), 1)[: len(mine)]
    assert order.consumed(10)["b"]["skipped"] == 0


def test_far_steps_need_no_more_memory_than_near_ones(make_recipe: Any) -> None:
    """DATA-07: planned steps and the step asked for change neither what is built nor what a step allocates."""
    peaks = []
    for steps, at in [(32_000, 0), (3_200_000, 3_199_999), (10**9, 10**9)]:
        tracemalloc.start()
        order = DataOrder(make_recipe(one_stage(steps=steps), batch_tokens=4096), COUNTS)
        assert len(order.windows(at).sources) == 512
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 1.05 * min(peaks)


def test_no_batch_is_dominated_by_one_document(make_recipe: Any) -> None:
    """DATA-06: a document of ten windows never fills more than a small part of a batch of a hundred windows."""
    recipe = make_recipe(one_stage(mixture={"a": 1}), ["a"], sequence=64, batch_tokens=6400, span=1024)
    order = DataOrder(recipe, {"a": 2_000_000})
    shares = []
    for step in range(300):
        documents = Counter((order.windows(step).offsets // 640).tolist())
        shares.append(max(documents.values()) / 100)
    assert max(shares) <= 0.1


@pytest.mark.parametrize(
    ("mixture", "counts", "words"),
    [
        ({"a": 1, "b": 1}, {"a": 100, "b": 7}, r"train\.stages\.0\.mixture\.b: the source holds 7 tokens"),
        ({"a": 1, "b": 1e-9}, COUNTS, r"train\.stages\.0\.mixture\.b: a weight of 1e-09"),
    ],
)
def test_a_source_that_cannot_be_drawn_is_named(
    make_recipe: Any, mixture: dict[str, float], counts: dict[str, int], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        DataOrder(make_recipe(one_stage(mixture=mixture)), counts)


def test_a_source_of_weight_zero_may_be_empty(make_recipe: Any) -> None:
    order = DataOrder(make_recipe(one_stage(mixture={"a": 1, "b": 0})), {"a": 100, "b": 0})
    assert order.consumed(100)["b"] == {"windows": 0, "tokens": 0, "epochs": 0.0, "skipped": 0}


def test_the_order_stays_as_it_was_first_published(make_recipe: Any) -> None:
    """A change here would break the resume of every run that exists."""
    order = DataOrder(make_recipe(one_stage()), COUNTS)
    assert order.windows(0).offsets.tolist() == [488, 2280, 2800, 0, 2808, 4544, 4568, 8]
    assert order.windows(1000).offsets.tolist() == [984, 2368, 4792, 144, 688, 3640, 4832, 152]
    assert order.windows(1000).epochs.tolist() == [9, 9, 9, 20, 9, 9, 9, 20]
