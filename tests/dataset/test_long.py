"""Sources of long documents: exactly the documents of that length, in order, in shards like any others."""

from pathlib import Path
from typing import Any

import pytest

from smelt.dataset.long import build_long, long_inputs, open_long
from smelt.dataset.trace import inspect
from smelt.errors import InputError
from smelt.files import read_json
from smelt.recipe.sections.dataset import LongDocuments


def lengths(shards: Any) -> list[int]:
    return [length for part in shards.lengths() for length in part.tolist()]


def test_a_long_source_has_the_long_documents_and_no_others(make_shards: Any, tokenizer: Any, tmp_path: Path) -> None:
    documents = [[100 + (i + j) % 200 for j in range(length)] for i, length in enumerate((3, 40, 7, 41, 39, 0, 90))]
    source = make_shards("web", documents, eos=tokenizer.eos, length=len(tokenizer), shard_tokens=60)
    assert len(source.files) > 1
    section = LongDocuments(of="web", tokens=41)
    assert build_long("long-web", section, source, tokenizer, tmp_path / "long") == {"documents": 3, "tokens": 174}
    long = open_long(tmp_path / "long")
    assert lengths(long) == [41, 42, 91]
    bounds = [long.document_bounds(index) for index in range(3)]
    read = [long.read(start, end - start).tolist() for start, end in bounds]
    assert read == [[*documents[index], tokenizer.eos] for index in (1, 3, 6)]


def test_they_are_an_artifact_like_other_shards(make_shards: Any, tokenizer: Any, tmp_path: Path) -> None:
    source = make_shards("web", [[5] * 50, [6] * 3], eos=tokenizer.eos, length=len(tokenizer))
    build_long("long-web", LongDocuments(of="web", tokens=20), source, tokenizer, tmp_path / "long")
    facts = inspect(tmp_path / "long")["sources"]["long"]["train"]
    assert (facts["documents"], facts["tokens"]) == (1, 51)
    keys = [long_inputs(LongDocuments(of="web", tokens=tokens), source) for tokens in (20, 21)]
    assert keys[0] != keys[1] and keys[0]["source"] == source.identity


def test_of_documents_without_an_end_no_token_is_lost(make_shards: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Shards made elsewhere may have them, and wider tokens than they need."""
    source = make_shards("web", [[5] * 50, [6] * 3], eos=9, length=100_000)
    build_long("long-web", LongDocuments(of="web", tokens=51), source, tokenizer, tmp_path / "long")
    long = open_long(tmp_path / "long")
    assert long.read(0, long.tokens).tolist() == [*[5] * 50, 9, tokenizer.eos]
    assert read_json(tmp_path / "long" / "manifest.json")["token_bytes"] == long.token_bytes == 2


def test_a_length_that_no_document_has_is_named(make_shards: Any, tokenizer: Any, tmp_path: Path) -> None:
    source = make_shards("web", [[5] * 50], eos=tokenizer.eos, length=len(tokenizer))
    with pytest.raises(InputError, match=r"dataset\.long\.long-web\.tokens: no document of 'web' has 52 tokens"):
        build_long("long-web", LongDocuments(of="web", tokens=52), source, tokenizer, tmp_path / "long")
    assert not (tmp_path / "long").exists()
