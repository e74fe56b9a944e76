"""The report of a corpus: one file, complete, safe against hostile text, and honest about what is absent."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smelt.cli.corpus import app
from smelt.errors import InputError
from smelt.files import whole_directory, write_json
from smelt.report.corpus.bars import HEIGHT, WIDTH, picture
from smelt.report.corpus.facts import Step, read_corpus
from smelt.report.corpus.html import changes, write_corpus_report

SECTIONS = ("funnels", "lengths", "languages", "scores", "clusters", "dropped", "edited", "quarantine", "recipe")
HOSTILE = "<script>alert('x')</script>"
EDGES = [0.0, 10.0, 20.0, 30.0, 40.0]


def rows(path: Path, *values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus folder of one filtered source and one that is only read, hostile wherever a text can be."""
    out = tmp_path / "c0ffee"
    filters = [{"kind": "gopher-quality", "min_words": 15}, {"kind": "predicate", "function": "m:f", "source": "0"}]
    sources = {
        "web": {"read": {"kind": "jsonl", "path": "web.jsonl"}, "edit": [{"kind": "pii"}], "filter": filters},
        "docs": {"read": {"kind": "python-docs"}},
    }
    funnel = [
        {"step": "read", "documents": 10, "bytes": 1000},
        {"step": "quarantined: not JSON", "documents": 1, "bytes": 0},
        {"step": "emptied by edits", "documents": 0, "bytes": 20},
        {"step": "gopher-quality: too few words", "documents": 2, "bytes": 30},
        {"step": "gopher-quality: too many words", "documents": 0, "bytes": 0},
        {"step": "exact", "documents": 1, "bytes": 100},
        {"step": "contaminated", "documents": 1, "bytes": 100},
        {"step": "kept", "documents": 5, "bytes": 750},
    ]
    words = {"edges": EDGES, "before": [0, 4, 5, 0], "after": [0, 0, 5, 0]}
    lengths = {"edges": EDGES, "before": [1, 2, 6, 0], "after": [0, 0, 5, 0]}
    with whole_directory(out, {"kind": "corpus", "inputs": {"corpus": {"sources": sources}}}) as folder:
        split = {"documents": 4, "bytes": 600}, {"documents": 1, "bytes": 150}
        report = dict(zip(("train", "validation"), split, strict=True))
        write_json(folder / "report.json", {"web": report, "docs": report})
        write_json(folder / "funnel.json", {"web": funnel, "docs": [{"step": "read", "documents": 5, "bytes": 750}]})
        found = {"characters": lengths, "languages": {"en": 8, "": 2}, "scores": {"gopher-quality.words": words}}
        write_json(folder / "histograms.json", {"web": found})
        scores = {"gopher-quality.words": 12.0, "predicate.score": 1.0}
        reason = "gopher-quality: too few words"
        rows(folder / "drops/web.jsonl", {"reason": reason, "id": HOSTILE, "text": HOSTILE, "scores": scores})
        edit = {"edit": "pii", "id": "b", "before": f"by me@example.org {HOSTILE}", "after": f"by <email> {HOSTILE}"}
        rows(folder / "edits/web.jsonl", {**edit, "changes": {"email": 1}})
        shown = {"source": "web", "id": "c", "text": HOSTILE}
        rows(folder / "clusters.jsonl", {"kind": "exact", "size": 2, "kept": shown, "dropped": [shown]})
        rows(folder / "quarantine/web.jsonl", {"place": "web.jsonl:7", "reason": "not JSON", "excerpt": HOSTILE})
    return out


def test_the_page_has_every_part_and_fetches_nothing(corpus: Path) -> None:
    """Beside the pictures' own paths there is no address in it, and no script."""
    page = write_corpus_report(corpus).read_text()
    assert re.findall(r'<section id="(\w+)">', page) == list(SECTIONS)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import", page)


def test_the_page_says_what_the_files_say(corpus: Path) -> None:
    page = write_corpus_report(corpus).read_text()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "Of 15 documents (1.75 kB), 10 are kept: 66.7 % of the documents" in words
    assert "gopher-quality: too few words \N{MINUS SIGN}2 20.0 % \N{MINUS SIGN}30 B" in words
    assert "Took nothing: gopher-quality: too many words." in words
    assert "unknown 2 20.0 %" in words
    assert "thresholds 15 and 100k" in words
    assert "not JSON" in words and "web.jsonl:7" in words
    assert "words 12" in words and "score 1" not in words.partition("Edited")[0].rpartition("Dropped")[2]


def test_a_document_counts_once(corpus: Path) -> None:
    data = read_corpus(corpus)
    assert data.ends("web") == (Step("read", 10, 1000), Step("kept", 5, 750))
    assert sum(step.documents for step in data.lost("web")) == 10 - 5
    assert data.total("exact", "minhash") == data.total("contaminated") == data.total("quarantined") == 1


def test_thresholds_are_those_of_the_recipe(corpus: Path) -> None:
    limits = read_corpus(corpus).limits["web"]
    assert limits["gopher-quality.words"] == [15, 100_000]
    assert limits["predicate.score"] == [1]


def test_what_is_absent_is_said(tmp_path: Path) -> None:
    """A corpus of an earlier release has its splits only."""
    with whole_directory(tmp_path / "old", {"kind": "corpus", "inputs": {}}) as folder:
        write_json(folder / "report.json", {"docs": {"train": {"documents": 3, "bytes": 30}}})
    page = write_corpus_report(tmp_path / "old").read_text()
    assert "3 are kept: 100 % of the documents" in re.sub(r"\s+", " ", page)
    assert page.count('class="absent"') == 8


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        write_corpus_report(tmp_path)
    with whole_directory(tmp_path / "shards", {"kind": "shards"}):
        pass
    with pytest.raises(InputError, match="not a corpus"):
        write_corpus_report(tmp_path / "shards")


def test_inspect_writes_the_page_where_it_is_told(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "page.html"
    done = CliRunner().invoke(app, ["inspect", str(corpus), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["page"] == str(out) and out.is_file()
    assert not (corpus / "report.html").exists()


def test_a_picture_is_cut_to_what_is_filled_and_its_threshold() -> None:
    drawn = picture(
        "words", {"edges": [0, 1, 2, 3, 4, 5], "before": [0, 4, 1, 0, 0], "after": [0, 4, 0, 0, 0]}, [3.5, 9]
    )
    assert drawn is not None
    assert drawn.ticks == ["1", "3", "5"]
    assert drawn.lines == [round(WIDTH * 2.5 / 4, 1)] and drawn.limits == ["3.5", "9"]
    assert drawn.dropped == 1
    assert drawn.before.startswith(f"M0 {HEIGHT:g}L0.0 0.0H60.0L60.0 {HEIGHT / 2:.1f}H120.0")
    assert picture("words", {"edges": [0, 1], "before": [0], "after": [0]}) is None


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        ("a b c", "a x c", [("same", "a "), ("gone", "b"), ("new", "x"), ("same", " c")]),
        ("one two three", "two three and more", [("gone", "one "), ("same", "two three"), ("same", " and more")]),
        ("all of it", "", [("gone", "all of it")]),
        ("", "new", [("new", "new")]),
    ],
)
def test_an_edit_is_shown_word_by_word(before: str, after: str, pieces: list[tuple[str, str]]) -> None:
    assert list(changes(before, after)) == pieces
