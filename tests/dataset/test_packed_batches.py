"""Packed batches: whole documents side by side, then padding that nothing is learned from; and their trace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.batches import IGNORED, BatchSource
from smelt.dataset.shards import Shards, make_tables
from smelt.dataset.trace import trace
from smelt.dataset.writer import write_shards
from smelt.tokenizer.tokenizer import Tokenizer

EOS = 0
Row = tuple[list[int], list[int], list[int]]


def naive(documents: Sequence[Sequence[int]], pieces: list[tuple[int, int]], masked: bool) -> Row:
    """(tokens, targets, starts) of a row of 8 that holds pieces [first, tokens) of the stream of documents."""
    stream = [token for document in documents for token in (*document, EOS)]
    of = [number for number, document in enumerate(documents) for _ in (*document, EOS)]
    tokens, targets, starts = [], [], []
    for start, count in pieces:
        begin = len(tokens)
        for place in range(start, start + count):
            ends = place + 1 == len(of) or of[place + 1] != of[place]
            tokens.append(stream[place])
            targets.append(IGNORED if ends else stream[place + 1])
            starts.append(begin)
    if not masked:
        behind = stream[(pieces[0][0] + 8) % len(stream)] if pieces[0][1] == 8 else IGNORED
        targets = [*tokens[1:], behind]
    padding = 8 - len(tokens)
    return tokens + [EOS] * padding, targets + [IGNORED] * padding, starts + [len(tokens)] * padding


@settings(max_examples=40)
@given(
    documents=st.lists(st.lists(st.integers(1, 400), max_size=20), min_size=1, max_size=40),
    shard_tokens=st.integers(1, 100),
    masked=st.booleans(),
    step=st.integers(0, 50),
)
def test_a_packed_batch_is_what_a_naive_reading_gives(
    tmp_path_factory: Any, make_recipe: Any, documents: list[list[int]], shard_tokens: int, masked: bool, step: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, documents, eos=EOS, length=401, tokenizer="t", shard_tokens=shard_tokens)
    stages = [{"name": "s", "steps": 60, "mixture": {"a": 1}}]
    recipe = make_recipe(stages, ["a"], document_mask=masked, packing="best-fit")
    shards = Shards(folder)
    source = BatchSource(recipe, {"a": shards}, EOS)
    batch, windows = source.batch(step), source.order.windows(step)
    assert batch.tokens.shape == batch.targets.shape == (8, 8)
    for row, window in enumerate(windows.offsets.tolist()):
        starts, lengths = shards.packed(32, 8).pieces(window)
        expected = naive(documents, list(zip(starts.tolist(), lengths.tolist(), strict=True)), masked)
        assert batch.tokens[row].tolist() == expected[0]
        assert batch.targets[row].tolist() == expected[1]
        assert batch.starts is None or batch.starts[row].tolist() == expected[2]


def test_rows_of_all_ranks_join_and_resuming_goes_on_exactly(make_recipe: Any, make_shards: Any, numbered: Any) -> None:
    """DATA-08, under packing, over a change of sequence and packing."""
    stages = [
        {"name": "one", "steps": 10, "mixture": {"a": 3, "b": 1}},
        {"name": "two", "steps": 10, "mixture": {"a": 1, "b": 1}, "sequence": 16},
        {"name": "three", "steps": 10, "mixture": {"a": 1, "b": 1}, "packing": "concatenate"},
    ]
    sources = {name: make_shards(name, numbered(900, seed), shard_tokens=400) for seed, name in enumerate("ab")}
    recipe = make_recipe(stages, packing="best-fit")
    source = BatchSource(recipe, sources, EOS)
    whole = list(source.prefetch(0, 30))
    fields = ("tokens", "targets", "starts", "sources")
    for ranks, step in ((2, 3), (3, 12), (8, 25)):
        parts = [source.batch(step, rank, ranks) for rank in range(ranks)]
        for field in fields:
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole[step], field))
    for first in (7, 10, 21):
        rest = BatchSource(recipe, sources, EOS).prefetch(first, 30)
        for one, other in zip(rest, whole[first:], strict=True):
            assert all(torch.equal(getattr(one, field), getattr(other, field)) for field in fields)


def test_tables_are_kept_on_disk_and_found_again(
    make_recipe: Any, make_shards: Any, numbered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe([{"name": "s", "steps": 9, "mixture": {"a": 1}}], ["a"], packing="best-fit")
    shards = make_shards("a", numbered(900, 0))
    shards.packing = tmp_path / "packing"
    streams = make_tables(recipe, {"a": shards})
    [folder] = shards.packing.iterdir()
    assert streams == {"a": shards.identity, "a packed to 8": folder.name}
    again = Shards(shards.folder)
    again.packing = shards.packing
    monkeypatch.setattr(Shards, "write_packed", lambda *any: pytest.fail("packed again"))
    stored, made = BatchSource(recipe, {"a": again}, EOS), BatchSource(recipe, {"a": Shards(shards.folder)}, EOS)
    assert torch.equal(stored.batch(5).tokens, made.batch(5).tokens)


def test_a_trace_names_the_documents_of_packed_windows(
    make_recipe: Any, make_shards: Any, tokenizer: Tokenizer
) -> None:
    """The trace's texts, put together, are the batch."""
    texts = ["the quick brown fox", "pack my box", "jugs", "the lazy dog jumps over the quick brown fox"] * 9
    ids = tokenizer.encode_batch(texts)
    shards = make_shards("a", ids, eos=tokenizer.eos, length=len(tokenizer))
    stages = [{"name": "s", "steps": 9, "mixture": {"a": 1}}]
    recipe = make_recipe(stages, ["a"], sequence=16, batch_tokens=64, packing="best-fit")
    rows = trace(recipe, {"a": shards}, tokenizer, 1)
    batch = BatchSource(recipe, {"a": shards}, tokenizer.eos).batch(1)
    for window in range(4):
        mine = [row for row in rows if row["window"] == window]
        assert [row["columns"][0] for row in mine] == [0, *(row["columns"][1] for row in mine[:-1])]
        for row in mine:
            first, last = row["columns"]
            text = tokenizer.decode(batch.tokens[window, first:last].tolist(), skip_special=False)
            whole = texts[row["document"]] + tokenizer.decode([tokenizer.eos], skip_special=False)
            assert row["text"] == text and text in whole
            assert row["offset"] > 0 or whole.startswith(text)
        assert (batch.targets[window, mine[-1]["columns"][1] :] == IGNORED).all()
