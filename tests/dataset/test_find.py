"""When a text was seen: every place of it, however it was tokenised there, and the steps that read the place."""

from collections.abc import Sequence
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from smelt.dataset.batches import BatchSource
from smelt.dataset.find import find, occurrences
from smelt.dataset.shards import Shards
from smelt.dataset.writer import write_shards
from smelt.errors import InputError
from smelt.tokenizer.tokenizer import Tokenizer

LINES = ["the quick brown fox jumps over the lazy dog", "pack my box with jugs"]
ALPHABET = st.sampled_from(["the", " quick", " brown", "fox", " ", "é", "漢", "\n", "jug", "s"])
TEXTS = st.lists(ALPHABET, max_size=12).map("".join)


@pytest.fixture(scope="module")
def unigram() -> Tokenizer:
    """A tokenizer that spells its tokens in characters, not in bytes."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<|endoftext|>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(LINES * 20, trainer)
    return Tokenizer(backend, {"eos_token": "<|endoftext|>"})


def shards_of(folder: Any, tokenizer: Tokenizer, texts: Sequence[str], shard_tokens: int = 2**30) -> Shards:
    ids = tokenizer.encode_batch(texts)
    options = {"eos": tokenizer.eos, "length": len(tokenizer), "tokenizer": "t", "shard_tokens": shard_tokens}
    write_shards(folder, ids, **options)
    return Shards(folder)


@settings(max_examples=40)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=12),
    needle=TEXTS.filter(str.strip),
    shard_tokens=st.integers(1, 60),
    chunk=st.sampled_from([3, 2**20]),
)
def test_every_place_of_a_text_is_found_whatever_tokens_it_has_there(
    tmp_path_factory: Any, tokenizer: Tokenizer, texts: list[str], needle: str, shard_tokens: int, chunk: int
) -> None:
    shards = shards_of(tmp_path_factory.mktemp("shards"), tokenizer, texts, shard_tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smelt.dataset.find._CHUNK", chunk)
        found = list(occurrences(shards, tokenizer, needle))
    held: dict[int, int] = {}
    for first, last in found:
        assert needle in tokenizer.decode(shards.read(first, last - first).tolist())
        document, _ = shards.document_at(first)
        assert last <= shards.document_bounds(document)[1]
        held[document] = held.get(document, 0) + 1
    assert set(held) == {number for number, text in enumerate(texts) if needle in text}
    assert [first for first, _ in found] == sorted(first for first, _ in found)


def test_tokens_that_are_spelt_in_characters_are_searched_document_by_document(tmp_path: Any, unigram: Any) -> None:
    texts = [LINES[0], LINES[1], f"{LINES[1]} {LINES[0]} {LINES[0]}"]
    shards = shards_of(tmp_path, unigram, texts)
    for needle in ("brown fox", "rown f", "jugs"):
        found = list(occurrences(shards, unigram, needle))
        documents = [shards.document_at(first)[0] for first, _ in found]
        assert documents == [number for number, text in enumerate(texts) for _ in range(text.count(needle))]
        for first, last in found:
            assert needle in unigram.decode(shards.read(first, last - first).tolist())


@pytest.mark.parametrize("packing", ["concatenate", "best-fit"])
def test_a_planted_text_is_seen_at_the_steps_whose_batches_hold_it(
    tmp_path: Any, make_recipe: Any, tokenizer: Tokenizer, packing: Any
) -> None:
    planted = "he quick planted secret"
    texts = [f"{LINES[number % 2]} {number}" for number in range(60)]
    texts[17] += f" t{planted} more"
    texts[40] = planted
    sources = {"a": shards_of(tmp_path / "a", tokenizer, texts), "b": shards_of(tmp_path / "b", tokenizer, texts[:9])}
    stages = [{"name": "s", "steps": 80, "mixture": {"a": 1, "b": 1}}]
    recipe = make_recipe(stages, sequence=32, batch_tokens=128, packing=packing)
    rows = find(recipe, sources, tokenizer, planted)
    assert [(row["source"], row["document"], row["same_tokens"]) for row in rows] == [("a", 17, False), ("a", 40, True)]
    assert all(planted in row["context"] for row in rows)
    assert rows[1]["offset"] == 0 and rows[1]["tokens"] == len(tokenizer.encode(planted))
    batches = BatchSource(recipe, sources, tokenizer.eos)
    for row in rows:
        epochs = {seen["epoch"] for seen in row["seen"]}
        assert len(epochs) > 1 and len(row["seen"]) >= len(epochs)
        for epoch in sorted(epochs)[:-1]:  # the last one may end within it
            seen = [each for each in row["seen"] if each["epoch"] == epoch]
            parts = [
                batches.batch(each["step"]).tokens[each["window"], slice(*each["columns"])].tolist()
                for each in sorted(seen, key=lambda each: -each["columns"][1] % 32)
            ]
            lengths = sum(len(part) for part in parts)
            assert lengths == row["tokens"]
            if len(parts) == 1:
                assert planted in tokenizer.decode(parts[0])


def test_the_number_of_places_is_limited_and_an_empty_text_refused(
    tmp_path: Any, make_recipe: Any, tokenizer: Tokenizer
) -> None:
    sources = {"a": shards_of(tmp_path, tokenizer, LINES * 9)}
    recipe = make_recipe([{"name": "s", "steps": 1, "mixture": {"a": 1}}], ["a"])
    assert len(find(recipe, sources, tokenizer, "the", 7)) == 7
    assert len(find(recipe, sources, tokenizer, "the", 100)) == 18
    assert find(recipe, sources, tokenizer, "no such words") == []
    with pytest.raises(InputError, match="find: the text is empty"):
        find(recipe, sources, tokenizer, "  ")
