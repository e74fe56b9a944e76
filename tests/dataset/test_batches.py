"""Batches: tokens, targets and document starts, against a naive reading of the same documents."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.batches import IGNORED, Batch, BatchSource
from smelt.dataset.shards import Shards
from smelt.dataset.writer import write_shards
from smelt.errors import InputError

EOS = 0


def stream_of(documents: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """(tokens, number of the document each one is of)."""
    tokens = [token for document in documents for token in (*document, EOS)]
    return tokens, [number for number, document in enumerate(documents) for _ in (*document, EOS)]


def naive(documents: list[list[int]], offset: int, count: int, masked: bool) -> tuple[list[int], list[int], list[int]]:
    tokens, of = stream_of(documents)
    window = tokens[offset : offset + count]
    targets = [tokens[(place + 1) % len(tokens)] for place in range(offset, offset + count)]
    if not masked:
        return window, targets, []
    last = [place + 1 == len(of) or of[place] != of[place + 1] for place in range(offset, offset + count)]
    targets = [IGNORED if end else target for target, end in zip(targets, last, strict=True)]
    starts = [max(0, of.index(of[place]) - offset) for place in range(offset, offset + count)]
    return window, targets, starts


def equal(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field), getattr(other, field)) for field in ("tokens", "targets", "starts", "sources")]
    return all(torch.equal(*pair) for pair in pairs)


@settings(max_examples=40)
@given(
    documents=st.lists(st.lists(st.integers(1, 400), max_size=15), min_size=8, max_size=40),
    shard_tokens=st.integers(1, 100),
    masked=st.booleans(),
    step=st.integers(0, 50),
)
def test_a_batch_is_what_a_naive_reading_gives(
    tmp_path_factory: Any, make_recipe: Any, documents: list[list[int]], shard_tokens: int, masked: bool, step: int
) -> None:
    """ARCH-06: documents are joined with their ends into fixed lengths, without padding, their bounds kept."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, documents, eos=EOS, length=401, tokenizer="t", shard_tokens=shard_tokens)
    recipe = make_recipe([{"name": "s", "steps": 9, "mixture": {"a": 1}}], ["a"], document_mask=masked)
    source = BatchSource(recipe, {"a": Shards(folder)}, EOS)
    batch, windows = source.batch(step), source.order.windows(step)
    assert batch.tokens.shape == batch.targets.shape == (8, 8)
    assert (batch.tokens.dtype, batch.targets.dtype) == (torch.int64, torch.int64)
    assert batch.starts is None if not masked else (batch.starts.shape, batch.starts.dtype) == ((8, 8), torch.int32)
    for row, offset in enumerate(windows.offsets.tolist()):
        expected = naive(documents, offset, 8, masked)
        starts = batch.starts[row].tolist() if masked else []
        assert (batch.tokens[row].tolist(), batch.targets[row].tolist(), starts) == expected


@pytest.fixture
def two_sources(make_recipe: Any, make_shards: Any, numbered: Any) -> BatchSource:
    stages = [
        {"name": "one", "steps": 30, "mixture": {"a": 3, "b": 1}},
        {"name": "two", "steps": 30, "mixture": {"a": 1, "b": 1}, "sequence": 16},
    ]
    sources = {name: make_shards(name, numbered(900, seed), shard_tokens=400) for seed, name in enumerate("ab")}
    return BatchSource(make_recipe(stages), sources, EOS)


def test_rows_carry_their_source(two_sources: BatchSource, numbered: Any) -> None:
    batch, windows = two_sources.batch(7), two_sources.order.windows(7)
    streams = [stream_of(numbered(900, seed))[0] for seed in (0, 1)]
    for row, (source, offset) in enumerate(zip(batch.sources.tolist(), windows.offsets.tolist(), strict=True)):
        assert batch.tokens[row].tolist() == streams[source][offset : offset + 8]
    assert set(batch.sources.tolist()) == {0, 1}


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_rows_of_all_ranks_join_to_the_batch(two_sources: BatchSource, ranks: int) -> None:
    for step in (3, 40):
        whole, parts = two_sources.batch(step), [two_sources.batch(step, rank, ranks) for rank in range(ranks)]
        for field in ("tokens", "targets", "starts", "sources"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


def test_more_ranks_than_rows_leave_some_empty(two_sources: BatchSource) -> None:
    parts = [two_sources.batch(0, rank, 11) for rank in range(11)]
    assert sorted(len(part.tokens) for part in parts) == [0] * 3 + [1] * 8


def test_resuming_at_any_step_goes_on_exactly(two_sources: BatchSource, make_recipe: Any) -> None:
    """DATA-08: stop and resume at any step reproduces the remaining batches, over a change of stage too."""
    whole = list(two_sources.prefetch(0, 60))
    assert all(equal(batch, two_sources.batch(step)) for step, batch in enumerate(whole)) and len(whole) == 60
    for first in (1, 29, 30, 47):
        rest = list(two_sources.prefetch(first, 60, depth=1))
        assert len(rest) == 60 - first
        assert all(equal(one, other) for one, other in zip(rest, whole[first:], strict=True))


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "smelt-batches"]


def test_closing_the_iterator_ends_its_thread(two_sources: BatchSource) -> None:
    batches = two_sources.prefetch(0, 10**9)
    assert all(equal(next(batches), two_sources.batch(step)) for step in range(5))
    assert len(workers()) == 1
    batches.close()
    assert not workers()


def test_an_error_in_the_thread_reaches_the_consumer(two_sources: BatchSource) -> None:
    shards = next(iter(two_sources._shards.values()))
    for path in shards.folder.iterdir():
        path.unlink()
    shards._map.cache_clear()
    with pytest.raises(FileNotFoundError):
        list(two_sources.prefetch(0, 60))
    assert not workers()


def test_documents_that_never_end_are_refused(make_recipe: Any, make_shards: Any) -> None:
    recipe = make_recipe([{"name": "s", "steps": 1, "mixture": {"a": 1}}], ["a"])
    with pytest.raises(InputError, match=r"source 'a': none of the first documents .* ends with the end-of-text id 7"):
        BatchSource(recipe, {"a": make_shards("a", [[1, 2, 3]] * 10)}, 7)
