"""The data order under best-fit packing, and the way back from a token to the steps that read it."""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.mixture import Mixture
from smelt.dataset.order import DataOrder
from smelt.dataset.packing import Table, pack
from smelt.dataset.permutation import invert, permute
from smelt.recipe.branch import resolve_from
from smelt.recipe.schema import Recipe

Read = tuple[int, int, int, int, int]  # source, epoch, token, step, column


def lengths_of(tokens: int, seed: int, longest: int = 25) -> np.ndarray:
    """Lengths of documents, `tokens` in all, some longer than a window of 8 or 16."""
    draw = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(min(int(draw.integers(1, longest)), tokens - sum(lengths)))
    return np.array(lengths)


class Sources:
    """Sources of documents of some lengths, and data orders over them."""

    def __init__(self, recipe: Recipe, lengths: Mapping[str, np.ndarray]) -> None:
        self.lengths, self.recipe, self.span = lengths, recipe, recipe.dataset.span
        self.table = cache(self._table)
        self.order = DataOrder(recipe, {name: int(each.sum()) for name, each in lengths.items()}, self.table)

    def _table(self, name: str, sequence: int) -> Table:
        return pack([self.lengths[name]], int(self.lengths[name].sum()), self.span, sequence)

    def reads(self, steps: range) -> list[Read]:
        """Every token that the steps read."""
        found: list[Read] = []
        for step in steps:
            windows = self.order.windows(step)
            drawn = zip(windows.sources.tolist(), windows.offsets.tolist(), windows.epochs.tolist(), strict=True)
            for source, offset, epoch in drawn:
                pieces = [(offset, windows.sequence)]
                if windows.packed:
                    table = self.order.table(source, windows.sequence)
                    pieces = list(zip(*(part.tolist() for part in table.pieces(offset)), strict=True))
                tokens = [start + place for start, count in pieces for place in range(count)]
                found += [(source, epoch, token, step, column) for column, token in enumerate(tokens)]
        return found


def packed(make_recipe: Any, stages: list[dict[str, Any]], names: str = "ab", **fields: Any) -> Recipe:
    return make_recipe(stages, names, **{"packing": "best-fit", **fields})


ONE = [{"name": "main", "steps": 60, "mixture": {"a": 3, "b": 1}}]
LENGTHS = {"a": lengths_of(3000, 0), "b": lengths_of(400, 1)}


@settings(max_examples=40)
@given(
    tokens=st.integers(1, 900),
    span=st.sampled_from([8, 16, 64, 1024]),
    sequence=st.sampled_from([4, 8]),
    seed=st.integers(0, 99),
)
def test_each_token_comes_exactly_once_an_epoch(
    make_recipe: Any, tokens: int, span: int, sequence: int, seed: int
) -> None:
    recipe = packed(
        make_recipe,
        [{"name": "s", "steps": 3000, "mixture": {"a": 1}}],
        "a",
        sequence=sequence,
        batch_tokens=sequence,
        span=span,
        seed=seed,
    )
    sources = Sources(recipe, {"a": lengths_of(tokens, seed)})
    each = len(sources.table("a", sequence).windows) - 1
    seen = Counter((epoch, token) for _, epoch, token, _, _ in sources.reads(range(2 * each)))
    assert set(seen.values()) == {1} and len(seen) == 2 * tokens
    used = sources.order.consumed(2 * each)["a"]
    padding = 2 * (each * sequence - tokens)
    expected = {"windows": 2 * each, "tokens": 2 * tokens, "epochs": 2.0, "skipped": 0}
    assert used == {**expected, **({"padding": padding} if padding else {})}


def test_epochs_and_seeds_differ_and_repeat_themselves(make_recipe: Any) -> None:
    """DATA-06, under packing."""
    each = len(pack([LENGTHS["a"]], 3000, 32, 8).windows) - 1
    runs = []
    for seed in (0, 1, 0):
        stages = [{"name": "s", "steps": 2 * each, "mixture": {"a": 1}}]
        order = Sources(packed(make_recipe, stages, "a", batch_tokens=8, seed=seed), LENGTHS).order
        drawn = [int(order.windows(step).offsets[0]) for step in range(2 * each)]
        runs.append([tuple(drawn[:each]), tuple(drawn[each:])])
    assert runs[0] == runs[2]
    assert len({order for run in runs[:2] for order in run}) == 4
    assert all((np.diff(order) == 1).mean() < 0.1 for run in runs for order in run)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_join_to_the_global_batch(make_recipe: Any, ranks: int) -> None:
    order = Sources(packed(make_recipe, ONE), LENGTHS).order
    for step in (0, 5, 59):
        whole = order.windows(step)
        parts = [order.windows(step, rank, ranks) for rank in range(ranks)]
        for field in ("sources", "offsets", "epochs"):
            assert np.concatenate([getattr(part, field) for part in parts]).tolist() == getattr(whole, field).tolist()


def test_any_step_by_itself_is_the_step_in_the_order(make_recipe: Any) -> None:
    """DATA-08: a fresh order, asked for late steps only, in no order, answers as one that has come all the way."""
    through = Sources(packed(make_recipe, ONE), LENGTHS)
    whole = {step: through.order.windows(step) for step in range(60)}
    for step in (59, 3, 31):
        alone = Sources(packed(make_recipe, ONE), LENGTHS).order.windows(step)
        assert [part.tolist() for part in alone[:3]] == [part.tolist() for part in whole[step][:3]]


def test_what_is_consumed_is_what_was_read(make_recipe: Any) -> None:
    """DATA-02: tokens by source, padding left out, at any step."""
    sources = Sources(packed(make_recipe, ONE), LENGTHS)
    for steps in (1, 7, 40, 60):
        counted = Counter(source for source, *_ in sources.reads(range(steps)))
        used = sources.order.consumed(steps)
        assert [used[name]["tokens"] for name in "ab"] == [counted[0], counted[1]]
        assert sum(each["tokens"] + each.get("padding", 0) for each in used.values()) == steps * 64
        assert all(each["skipped"] == 0 for each in used.values())


@settings(max_examples=40)
@given(
    tokens=st.integers(64, 6000),
    cuts=st.lists(
        st.tuples(st.integers(1, 30), st.sampled_from([4, 8, 16, 32]), st.sampled_from(["best-fit", "concatenate"])),
        min_size=2,
        max_size=4,
    ),
)
def test_a_change_of_sequence_or_packing_goes_on_with_the_next_group(
    make_recipe: Any, tokens: int, cuts: list[tuple[int, int, Any]]
) -> None:
    """No token comes twice in an epoch while packed; where packing changes too, only documents across spans' edges."""
    stages = [
        {"name": str(i), "steps": steps, "mixture": {"a": 1}, "sequence": sequence, "packing": packing}
        for i, (steps, sequence, packing) in enumerate(cuts)
    ]
    lengths, span, steps = lengths_of(tokens, 3), 128, sum(each[0] for each in cuts)
    sources = Sources(packed(make_recipe, stages, "a", batch_tokens=32, span=span), {"a": lengths})
    reads = sources.reads(range(steps))
    epochs = [epoch for _, epoch, _, _, _ in reads]
    assert epochs == sorted(epochs)
    twice = [read for read, times in Counter(read[1:3] for read in reads).items() if times > 1]
    if len({packing for _, _, packing in cuts}) == 1:
        assert not twice
    else:
        ends = np.cumsum(lengths)
        for _, token in twice:
            end = int(ends[np.searchsorted(ends, token, side="right")])
            start = end - int(lengths[np.searchsorted(ends, token, side="right")])
            assert start // span < (end - 1) // span
    used = sources.order.consumed(steps)["a"]
    assert used["tokens"] == len(reads) and used["skipped"] >= 0


def test_amended_skips_pass_over_windows_and_are_counted(make_recipe: Any) -> None:
    """MARA-12, under packing."""
    plain = Sources(packed(make_recipe, ONE), LENGTHS)
    amendments = [{"from_step": 20, "skip": 7}]
    recipe = Recipe.model_validate({**plain.recipe.model_dump(), "amendments": amendments})
    skipping = Sources(recipe, LENGTHS)
    moved = [(*read[:3], read[3] + (7 if read[3] >= 20 else 0), read[4]) for read in skipping.reads(range(40))]
    assert moved == plain.reads(range(20)) + plain.reads(range(27, 47))
    passed = Counter(source for source, *_ in plain.reads(range(20, 27)))
    used = skipping.order.consumed(40)
    assert [used[name]["skipped"] for name in "ab"] == [passed[0], passed[1]]


def test_a_branch_goes_on_with_the_data_of_a_packed_trunk(make_recipe: Any) -> None:
    """OPT-08: the trunk's packing is part of the branch's past, whatever packing the branch itself has."""
    trunk = packed(make_recipe, ONE)
    stage = [{**ONE[0], "name": "branch", "steps": 10}]
    recipe = make_recipe(stage, "ab", **{"from": {"run": "trunk", "step": 25}})
    branch = Sources(resolve_from(recipe, trunk), LENGTHS)
    whole = [{**ONE[0], "steps": 25}, {**stage[0], "packing": "concatenate"}]
    planned = Sources(packed(make_recipe, whole), LENGTHS)
    assert branch.reads(range(35)) == planned.reads(range(35))
    assert branch.reads(range(25)) == Sources(trunk, LENGTHS).reads(range(25))
    assert branch.order.consumed(35) == planned.order.consumed(35)


@settings(max_examples=25)
@given(
    packing=st.sampled_from(["best-fit", "concatenate"]),
    tokens=st.integers(150, 1500),
    span=st.sampled_from([16, 64]),
    skip=st.integers(1, 5),
    data=st.data(),
)
def test_the_way_back_leads_to_every_step_that_read_a_token(
    make_recipe: Any, packing: Any, tokens: int, span: int, skip: int, data: st.DataObject
) -> None:
    """Against every token of every step, over epochs, stages of other sequences and mixtures, and skips."""
    stages = [
        {"name": "one", "steps": 30, "mixture": {"a": 3, "b": 1}},
        {"name": "two", "steps": 25, "mixture": {"a": 1, "b": 2}, "sequence": 16},
    ]
    recipe = packed(make_recipe, stages, packing=packing, span=span)
    recipe = Recipe.model_validate({**recipe.model_dump(), "amendments": [{"from_step": 12, "skip": skip}]})
    lengths = {"a": lengths_of(tokens, 5), "b": lengths_of(200, 6)}
    sources = Sources(recipe, lengths)
    read: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for source, epoch, token, step, column in sources.reads(range(55)):
        read.setdefault((source, token), []).append((step, epoch, column))
    for source, name in enumerate("ab"):
        first = data.draw(st.integers(0, int(lengths[name].sum()) - 1))
        ends = np.cumsum(lengths[name])
        document = int(np.searchsorted(ends, first, side="right"))
        begin, end = int(ends[document] - lengths[name][document]), int(ends[document])
        last = data.draw(st.integers(first + 1, end))
        seen = sources.order.seen(name, (first, last), begin)
        assert [each.step for each in seen] == sorted(each.step for each in seen)
        for token in range(first, last):
            places = [
                (each.step, each.epoch, each.columns[0] + token - each.tokens[0])
                for each in seen
                if each.tokens[0] <= token < each.tokens[1]
            ]
            assert sorted(places) == sorted(read.get((source, token), []))


@given(size=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=30)
def test_a_permutation_is_inverted(size: int, key: int) -> None:
    index = np.arange(min(size, 400))
    sizes, keys = np.full(len(index), size), np.full(len(index), key, dtype=np.uint64)
    assert invert(permute(index, sizes, keys), sizes, keys).tolist() == index.tolist()


@given(weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=5), data=st.data())
@settings(max_examples=20)
def test_a_window_of_a_mixture_is_found_by_its_number_in_the_source(weights: list[float], data: st.DataObject) -> None:
    mixture = Mixture(weights)
    windows = np.array(data.draw(st.lists(st.integers(0, 10**7), min_size=1, max_size=8)))
    source, nth = mixture.locate(windows)
    back = [int(mixture.window_of(s, np.array([n]))[0]) for s, n in zip(source.tolist(), nth.tolist(), strict=True)]
    assert back == windows.tolist()


def test_the_packed_order_stays_as_it_was_first_published(make_recipe: Any) -> None:
    """A change here would break the resume of every run that exists."""
    order = Sources(packed(make_recipe, ONE), LENGTHS).order
    assert order.windows(0).offsets.tolist() == [401, 162, 325, 31, 400, 18, 153, 32]
    assert order.windows(59).offsets.tolist() == [391, 390, 337, 5, 336, 335, 201, 0]
    assert order.windows(59).epochs.tolist() == [0, 0, 0, 2, 0, 0, 0, 2]
