"""datatrove reads our shards, and we read what datatrove writes."""

from pathlib import Path
from typing import Any

import pytest

from smelt.dataset.batches import BatchSource
from smelt.dataset.shards import Shards, open_sources
from smelt.tokenizer.tokenizer import Tokenizer

pytest.importorskip("datatrove", reason="datatrove is not installed")
TEXTS = [f"the quick brown fox number {number} " + "jumps over the lazy dog " * (number % 5) for number in range(200)]


def lengths(shards: Shards) -> list[int]:
    return [length for part in shards.lengths() for length in part.tolist()]


@pytest.mark.parametrize(("length", "width"), [(60_000, 2), (100_000, 4)])
def test_datatrove_reads_our_shards(make_shards: Any, numbered: Any, length: int, width: int) -> None:
    from datatrove.utils.dataset import DatatroveFolderDataset

    shards = make_shards("s", numbered(3000), length=length, shard_tokens=1000)
    theirs = DatatroveFolderDataset(str(shards.folder), seq_len=9, token_size=width, return_positions=True)
    at = 0
    for shard in shards.files:
        for window in range(shard.tokens // 10):
            item, start = theirs[at], shard.start + 10 * window
            assert item["input_ids"].tolist() == shards.read(start, 10).tolist()
            begins = [0, *shards.window(start, 10)[1].tolist()]
            positions = [place - max(begin for begin in begins if begin <= place) for place in range(10)]
            assert item["positions"].tolist() == positions
            at += 1
    assert at == len(theirs) > 290


def test_datatrove_merges_our_shards(make_shards: Any, numbered: Any, tmp_path: Path) -> None:
    """Its merger reads our metadata and index, and we read its output."""
    from datatrove.pipeline.tokens import DocumentTokenizerMerger

    shards = make_shards("s", numbered(3000), shard_tokens=1000)
    DocumentTokenizerMerger(str(shards.folder), str(tmp_path / "merged"), save_filename="m", shuffle=False).run()
    merged = Shards(tmp_path / "merged")
    assert merged.read(0, merged.tokens).tolist() == shards.read(0, shards.tokens).tolist()
    assert lengths(merged) == lengths(shards)


def test_we_read_what_datatrove_tokenizes(make_recipe: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    tokenizer.save(tmp_path / "tokenizer")
    step = DocumentTokenizer(
        str(tmp_path / "shards"),
        str(tmp_path / "tokenizer/tokenizer.json"),
        eos_token="<|endoftext|>",
        max_tokens_per_file=1500,
        seed=3,
    )
    step.run(iter([Document(text, str(number)) for number, text in enumerate(TEXTS)]))
    recipe = make_recipe([{"name": "s", "steps": 1, "mixture": {"a": 1}}], ["a"])
    dataset = recipe.dataset.model_copy(update={"shards": {"a": str(tmp_path / "shards")}})
    sources = open_sources(recipe.model_copy(update={"dataset": dataset}), None, tokenizer)
    shards = sources["a"]
    bounds = [shards.document_bounds(number) for number in range(shards.documents)]
    assert len(shards.files) > 1
    assert sorted(tokenizer.decode(shards.read(start, end - start).tolist()) for start, end in bounds) == sorted(TEXTS)
    assert BatchSource(recipe, sources, tokenizer.eos).batch(0).tokens.shape == (8, 8)


@pytest.mark.parametrize("width", [2, 4])
def test_we_read_a_bare_tokenized_file(tmp_path: Path, width: int) -> None:
    """Without final metadata the width follows from the index."""
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    file = TokenizedFile(str(tmp_path), "bare.ds", token_size=width)
    file.write([5, 6, 7, 0], None)
    file.write([8, 0], None)
    file.close()
    shards = Shards(tmp_path)
    assert (shards.token_bytes, lengths(shards)) == (width, [4, 2])
    assert shards.read(0, 6).tolist() == [5, 6, 7, 0, 8, 0]
