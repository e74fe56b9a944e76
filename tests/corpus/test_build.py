"""Building a corpus: splits, reports, whole folders, and its inputs."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.build import build_corpus, corpus_inputs, documents
from smelt.corpus.splits import text_share
from smelt.errors import InputError
from smelt.files import check_directory, read_json
from smelt.recipe.schema import Recipe


def recipe(sources: dict, seed: int = 0, fraction: float = 0.1) -> Recipe:
    corpus = {"sources": sources, "validation_fraction": fraction}
    return Recipe.model_validate({"name": "test", "seed": seed, "corpus": corpus})


def write(path: Path, texts: list[str | None]) -> dict:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {"read": {"kind": "jsonl", "path": str(path)}}


def splits(corpus: Path, source: str) -> tuple[list[str], list[str]]:
    train, validation = ([each.text for each in documents(corpus, source, split)] for split in ("train", "validation"))
    return train, validation


def texts(corpus: Path) -> list[str]:
    train, validation = splits(corpus, "web")
    return train + validation


def test_documents_are_split_and_reported(tmp_path: Path) -> None:
    texts = [f"document {index} ü" for index in range(500)]
    sums = {"read": {"kind": "arithmetic", "documents": 60}}
    seen: list[tuple[str, int]] = []
    made = recipe({"web": write(tmp_path / "a.jsonl", texts), "sums": sums})
    report = build_corpus(made, tmp_path / "corpus", lambda *news: seen.append(news))
    train, validation = splits(tmp_path / "corpus", "web")
    assert sorted(train + validation) == sorted(texts)
    assert validation == [text for text in texts if text_share(text) < 0.1]
    assert 20 < len(validation) < 90
    assert report["web"]["train"] == {"documents": len(train), "bytes": sum(len(text.encode()) for text in train)}
    assert report == read_json(tmp_path / "corpus" / "report.json")
    assert check_directory(tmp_path / "corpus")["inputs"] == json.loads(json.dumps(corpus_inputs(made)))
    assert seen == [("web", 256), ("web", 500), ("sums", 60)]


def test_the_same_recipe_builds_the_same_bytes(tmp_path: Path) -> None:
    made = recipe({"sums": {"read": {"kind": "arithmetic", "documents": 50}}})
    for name in ("one", "two"):
        build_corpus(made, tmp_path / name)
    assert check_directory(tmp_path / "one") == check_directory(tmp_path / "two")


def test_copies_of_a_text_land_in_one_split(tmp_path: Path) -> None:
    texts = [f"text {index % 40}" for index in range(200)]
    build_corpus(recipe({"web": write(tmp_path / "a.jsonl", texts)}, fraction=0.3), tmp_path / "corpus")
    train, validation = splits(tmp_path / "corpus", "web")
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 200


@given(st.text(), st.text())
def test_a_texts_share_depends_on_the_text_alone(text: str, other: str) -> None:
    assert text_share(text) == text_share(text) and 0 <= text_share(text) < 1
    assert (text_share(text) == text_share(other)) == (text == other)


@pytest.mark.parametrize("fraction", [0.0001, 0.4999])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_small_source_has_both_splits(tmp_path: Path, count: int, fraction: float) -> None:
    for start in range(4):
        texts = [f"small {start} {index}" for index in range(count)]
        source = write(tmp_path / "a.jsonl", [*texts, texts[0]])
        report = build_corpus(recipe({"web": source}, fraction=fraction), tmp_path / "corpus")
        train, validation = splits(tmp_path / "corpus", "web")
        assert train and validation and not set(train) & set(validation)
        assert sorted(train + validation) == sorted([*texts, texts[0]])
        assert report["web"]["validation"]["documents"] == len(validation)
        if fraction == 0.0001:
            assert set(validation) == {min(texts, key=text_share)}


def test_documents_are_capped_and_empty_ones_dropped(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", ["one", " \n", None, "two", "three", "four"])
    build_corpus(recipe({"web": {**source, "documents": 5}}), tmp_path / "corpus")
    assert sorted(texts(tmp_path / "corpus")) == ["one", "three", "two"]


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude00"}\n{"text": "c"}\n')
    build_corpus(recipe({"web": {"read": {"kind": "jsonl", "path": str(tmp_path / "a.jsonl")}}}), tmp_path / "corpus")
    assert sorted(texts(tmp_path / "corpus")) == ["a\ufffdb", "c", "😀"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"corpus\.sources\.web: .*a\.jsonl: empty file"),
        ('{"text": " "}\n', r"corpus\.sources\.web: no document with any text"),
        ('{"text": "a"}\n{"text": "a"}\n', r"corpus\.sources\.web: only one text, .* split it into several documents"),
        ('{"body": "a"}\n', r"corpus\.sources\.web: .*a\.jsonl:1: has no field 'text' \(fields there: body\)"),
        (None, r"corpus\.sources\.web: .*a\.jsonl: no such file"),
    ],
)
def test_a_bad_source_is_named_and_leaves_nothing_behind(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        build_corpus(recipe({"web": {"read": {"kind": "jsonl", "path": str(path)}}}), tmp_path / "made" / "corpus")
    assert "\n" not in str(caught.value)
    assert not any((tmp_path / "made").glob("*"))


def test_inputs_change_with_what_the_corpus_depends_on(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", ["one", "two"])
    sources = {"web": source, "docs": {"read": {"kind": "python-docs"}}}
    first = corpus_inputs(recipe(sources))
    assert first == corpus_inputs(recipe(sources, seed=1))
    assert first != corpus_inputs(recipe(sources, fraction=0.2))
    os.utime(tmp_path / "a.jsonl", (1, 1))
    assert first != corpus_inputs(recipe(sources))
    sums = {"sums": {"read": {"kind": "arithmetic"}}}
    assert corpus_inputs(recipe(sums)) != corpus_inputs(recipe(sums, seed=1))


def test_an_unknown_split_is_named(tmp_path: Path) -> None:
    build_corpus(recipe({"web": write(tmp_path / "a.jsonl", ["one", "two"])}), tmp_path / "corpus")
    with pytest.raises(InputError, match=r"no such split \(sources there: web\)"):
        list(documents(tmp_path / "corpus", "wub", "train"))


def test_real_documents_of_every_source_can_be_built(tmp_path: Path) -> None:
    data = os.environ.get("SMELT_DATA")
    if data is None:
        pytest.skip("set SMELT_DATA to the folder of shared data")
    sources = {
        "wiki": {"read": {"kind": "jsonl", "path": f"{data}/pretrain/en_wikitext2.jsonl.gz"}, "documents": 50},
        "other": {"read": {"kind": "jsonl", "path": f"{data}/pretrain/[df]*.jsonl.gz"}, "documents": 50},
    }
    report = build_corpus(recipe(sources), tmp_path / "corpus")
    assert all(sum(split["documents"] for split in splits.values()) == 50 for splits in report.values())
