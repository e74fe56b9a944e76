"""From a corpus to batches: shards of every source and split, their manifest, and what damages them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from smelt.corpus.build import build_corpus, documents
from smelt.dataset.batches import BatchSource
from smelt.dataset.build import build_shards, shards_inputs
from smelt.dataset.shards import open_sources, open_split
from smelt.dataset.trace import inspect, trace
from smelt.errors import InputError
from smelt.files import check_directory, read_json
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("text")
    for source in ("fox", "box"):
        rows = [{"text": f"{source} number {number}: " + "the lazy dog. " * (number % 7)} for number in range(2500)]
        (folder / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = {source: {"read": {"kind": "jsonl", "path": str(folder / f"{source}.jsonl")}} for source in ("fox", "box")}
    stage = {"name": "main", "steps": 100, "mixture": {"fox": 2, "box": 1}}
    return Recipe.model_validate(
        {
            "name": "test",
            "corpus": {"sources": read},
            "dataset": {"span": 256},
            "train": {"sequence": 32, "batch_tokens": 256, "stages": [stage]},
        }
    )


@pytest.fixture(scope="module")
def corpus(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artifacts") / "corpus"
    build_corpus(recipe, out)
    return out


@pytest.fixture
def shards(recipe: Recipe, corpus: Path, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    build_shards(recipe, corpus, tokenizer, tmp_path / "shards")
    return tmp_path / "shards"


def test_every_document_is_in_the_shards_of_its_split(
    recipe: Recipe, corpus: Path, shards: Path, tokenizer: Tokenizer
) -> None:
    for split in ("train", "validation"):
        for source, opened in open_split(shards, split, tokenizer).items():
            bounds = [opened.document_bounds(number) for number in range(opened.documents)]
            ids = [opened.read(start, end - start).tolist() for start, end in bounds]
            assert all(document[-1] == tokenizer.eos for document in ids)
            texts = [tokenizer.decode(document) for document in ids]
            expected = [document.text for document in documents(corpus, source, split)]
            assert Counter(texts) == Counter(expected)
            assert (texts == expected) == (split == "validation")


def test_the_manifest_says_what_the_shards_hold(
    recipe: Recipe, corpus: Path, shards: Path, tokenizer: Tokenizer
) -> None:
    """DATA-08: token width, counts and checksums are on record."""
    manifest = check_directory(shards)
    assert manifest["tokenizer"] == tokenizer.hash
    assert (manifest["tokenizer_length"], manifest["token_bytes"]) == (len(tokenizer), 2)
    report = read_json(corpus / "report.json")
    for source, splits in manifest["sources"].items():
        for split, counts in splits.items():
            assert {key: counts[key] for key in ("documents", "bytes")} == report[source][split]
            assert counts["tokens"] == open_split(shards, split, tokenizer)[source].tokens
            assert f"{source}/{split}/00000.ds" in manifest["files"]


def test_validation_documents_keep_their_bytes(shards: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    rows = [json.loads(line) for line in (shards / "fox/validation/documents.jsonl").read_text().splitlines()]
    expected = list(documents(corpus, "fox", "validation"))
    assert [row["bytes"] for row in rows] == [len(document.text.encode()) for document in expected]
    assert [row["id"] for row in rows] == [document.id for document in expected]
    opened = open_split(shards, "validation", tokenizer)["fox"]
    assert [row["tokens"] for row in rows] == [length for part in opened.lengths() for length in part.tolist()]


def test_building_twice_gives_the_same_files_and_tells_of_progress(
    recipe: Recipe, corpus: Path, shards: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    told: list[tuple[str, int]] = []
    build_shards(recipe, corpus, tokenizer, tmp_path / "again", lambda source, count: told.append((source, count)))
    assert read_json(tmp_path / "again/manifest.json") == read_json(shards / "manifest.json")
    assert told[0] == ("fox", 1024) and ("fox", 2500) in told and told[-1] == ("box", 2500)


def test_inputs_follow_corpus_and_tokenizer(recipe: Recipe) -> None:
    assert shards_inputs(recipe, "c", "t") == shards_inputs(recipe, "c", "t")
    assert shards_inputs(recipe, "c", "t") not in (shards_inputs(recipe, "d", "t"), shards_inputs(recipe, "c", "u"))


def test_sources_open_in_the_order_of_the_recipe(recipe: Recipe, shards: Path, tokenizer: Tokenizer) -> None:
    sources = open_sources(recipe, shards, tokenizer)
    assert tuple(sources) == recipe.sources == ("fox", "box")
    batch = BatchSource(recipe, sources, tokenizer.eos).batch(0)
    for row, source in zip(batch.tokens.tolist(), batch.sources.tolist(), strict=True):
        assert recipe.sources[1 - source] not in tokenizer.decode(row)


def test_a_truncated_shard_is_named(recipe: Recipe, shards: Path, tokenizer: Tokenizer) -> None:
    file = shards / "fox/train/00000.ds"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"fox/train/00000\.ds: \d+ bytes where manifest\.json says \d+"):
        open_sources(recipe, shards, tokenizer)


def test_another_tokenizer_is_refused_with_both_hashes(recipe: Recipe, shards: Path, tokenizer: Tokenizer) -> None:
    other = train_tokenizer(384, ["other words"])
    words = (
        rf"{tokenizer.hash[:16]} \({len(tokenizer)} ids\), not with this one, {other.hash[:16]} \({len(other)} ids\)"
    )
    with pytest.raises(InputError, match=words):
        open_sources(recipe, shards, other)


def test_shards_from_a_build_serve_as_a_ready_made_source(make_recipe: Any, shards: Path, tokenizer: Tokenizer) -> None:
    recipe = make_recipe([{"name": "s", "steps": 1, "mixture": {"a": 1}}], ["a"])
    dataset = recipe.dataset.model_copy(update={"shards": {"a": str(shards / "box/train")}})
    opened = open_sources(recipe.model_copy(update={"dataset": dataset}), None, tokenizer)["a"]
    assert opened.tokens == open_split(shards, "train", tokenizer)["box"].tokens


def test_trace_returns_the_documents_behind_a_step(
    recipe: Recipe, corpus: Path, shards: Path, tokenizer: Tokenizer
) -> None:
    """ARCH-06: document ids are kept, so that every token of a batch leads back to its document."""
    sources = open_sources(recipe, shards, tokenizer)
    texts = {name: {each.text for each in documents(corpus, name, "train")} for name in recipe.sources}
    batch = BatchSource(recipe, sources, tokenizer.eos).batch(11)
    rows = trace(recipe, sources, tokenizer, 11)
    for window in range(8):
        mine = [row for row in rows if row["window"] == window]
        assert {row["source"] for row in mine} == {recipe.sources[batch.sources[window]]}
        assert "".join(row["text"] for row in mine) == tokenizer.decode(batch.tokens[window].tolist(), False)
        first = [row["columns"][0] for row in mine]
        assert first == sorted(set(batch.starts[window].tolist())) and mine[-1]["columns"][1] == 32
        for row in mine:
            start, end = sources[row["source"]].document_bounds(row["document"])
            whole = tokenizer.decode(sources[row["source"]].read(start, end - start).tolist())
            assert whole in texts[row["source"]] and row["text"].removesuffix("<|endoftext|>") in whole
            assert Path(row["shard"]).is_file() and row["epoch"] == 0
            assert (row["offset"] == 0) == (row["text"].startswith(row["source"]))


def test_inspect_counts_and_shows(shards: Path, tokenizer: Tokenizer) -> None:
    """ARCH-06: the length report gives the share of documents under 2k tokens."""
    found = inspect(shards, tokenizer)
    assert found["tokenizer"] == tokenizer.hash
    fox = found["sources"]["fox"]["train"]
    counts = read_json(shards / "manifest.json")["sources"]["fox"]["train"]
    assert (fox["documents"], fox["tokens"]) == (counts["documents"], counts["tokens"])
    assert fox["share_under_2048_tokens"] == 1.0 and fox["first"][0].startswith("fox number")
    alone = inspect(shards / "fox/train")["sources"]["train"]["all"]
    assert alone["tokens"] == counts["tokens"] and tokenizer.decode(alone["first"][0], False) == fox["first"][0]


def test_inspect_finds_changed_contents(shards: Path) -> None:
    file = shards / "fox/train/00000.ds"
    file.write_bytes(b"\x01\x00" + file.read_bytes()[2:])
    with pytest.raises(InputError, match="its contents differ"):
        inspect(shards)


def test_inspect_refuses_what_is_not_shards(corpus: Path) -> None:
    with pytest.raises(InputError, match="holds no token shards but 'corpus'"):
        inspect(corpus)


def test_inspect_finds_document_ends_out_of_order(make_shards: Any) -> None:
    folder = make_shards("s", [[1, 2, 3], [4], [5]]).folder
    index = folder / "00000.ds.index"
    raw = index.read_bytes()
    index.write_bytes(raw[8:16] + raw[:8] + raw[16:])
    with pytest.raises(InputError, match="not in order"):
        inspect(folder)
