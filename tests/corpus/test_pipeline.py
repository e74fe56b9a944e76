"""Building a corpus in stages: what is dropped and counted, what is kept for the next build, what is set aside."""

import gzip
import json
import os
import random
import resource
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from smelt.corpus import groups
from smelt.corpus.build import build_corpus, documents
from smelt.corpus.duplicates.lines import LineCounts, repeated
from smelt.corpus.splits import SPLITS
from smelt.corpus.stages import pipeline
from smelt.corpus.stages.assembly import Built
from smelt.corpus.stages.decisions import Table, drop_duplicates
from smelt.corpus.stages.sample import Samples, merged
from smelt.corpus.stages.tasks import Task
from smelt.errors import InputError
from smelt.files import read_json
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.duplicates import Exact, Lines

ONE = {"kind": "local", "workers": 1}
SYLLABLES = ("ba", "do", "fi", "gu", "ke", "la", "mo", "nu", "pe", "ri", "so", "ta")


def recipe(folder: Path, corpus: dict[str, Any], **texts: list[str] | list[list[str]]) -> Recipe:
    """A recipe whose sources are files of these texts; a source given as lists has a file for each."""
    sources = corpus.pop("sources", {})
    for name, each in texts.items():
        parts = each if each and isinstance(each[0], list) else [each]
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(parts):
            rows = [{"text": text, "id": f"{name}-{number}-{index}"} for index, text in enumerate(part)]
            file = folder / name / f"{number}.jsonl"
            content = "".join(json.dumps(row) + "\n" for row in rows)
            if not file.exists() or file.read_text() != content:
                file.write_text(content)
        sources.setdefault(name, {})["read"] = {"kind": "jsonl", "path": str(folder / name)}
    whole = {"validation_fraction": 0.1, "executor": ONE, "bad_share": 0.5, **corpus, "sources": sources}
    return Recipe.model_validate({"name": "test", "corpus": whole})


def prose(number: int, words: int) -> str:
    """Words in an order that no other number has."""
    draw = random.Random(number)
    return " ".join(f"{draw.choice(SYLLABLES)}{draw.choice(SYLLABLES)}" for _ in range(words))


def ids(corpus: Path, source: str) -> list[str]:
    return sorted(document.id for split in SPLITS for document in documents(corpus, source, split))


def rows(file: Path) -> list[Any]:
    return [json.loads(row) for row in file.read_text().splitlines()]


def steps(corpus: Path, source: str) -> dict[str, int]:
    return {row["step"]: row["documents"] for row in read_json(corpus / "funnel.json")[source]}


def contents(corpus: Path) -> dict[str, bytes]:
    """Every file but the manifest, which names the folder of the input."""
    files = (file for file in corpus.rglob("*") if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(corpus)): file.read_bytes() for file in files}


def made(artifacts: Path, kind: str) -> dict[str, int]:
    """When each file of a stage was written."""
    return {str(file): file.stat().st_mtime_ns for file in (artifacts / kind).rglob("*.*")}


EVERYTHING: dict[str, Any] = {
    "lines": {"max_documents": 3},
    "dedup": [{"kind": "exact"}, {"kind": "minhash"}],
}


def many(folder: Path, executor: dict[str, Any] = ONE) -> Recipe:
    """Two sources of four and two parts, in which every stage finds something to do."""
    common = "This notice is found on every page of the site."
    web = [
        [
            f"{common}\n{prose(100 * part + index, 20 + 10 * (index % 7))}\nwrite to a{index}@example.com"
            for index in range(30)
        ]
        for part in range(4)
    ]
    near = (text.replace("\n", "\nchanged ", 1) for text in web[0][6:13])
    web[2] = [*web[1][:5], *near, *web[2], common]
    books = [[prose(1000 * (part + 1) + index, 60) for index in range(20)] for part in range(2)]
    (folder / "protected.jsonl").write_text(json.dumps({"question": web[3][6].split("\n")[1]}) + "\n")
    against = [{"path": str(folder / "protected.jsonl"), "field": "question"}]
    sources = {"web": {"edit": [{"kind": "pii"}], "filter": [{"kind": "lengths", "min_characters": 250}]}}
    changes = {**EVERYTHING, "sources": sources, "executor": executor, "decontaminate": {"against": against}}
    return recipe(folder, changes, web=web, books=books)


def test_every_step_is_counted_and_the_counts_add_up(tmp_path: Path) -> None:
    report = build_corpus(many(tmp_path), tmp_path / "corpus")
    funnel = read_json(tmp_path / "corpus" / "funnel.json")
    for source, told in funnel.items():
        for what in ("documents", "bytes"):
            assert told[0][what] - sum(row[what] for row in told[1:-1]) == told[-1][what]
            assert told[-1][what] == sum(split[what] for split in report[source].values())
        assert (told[0]["step"], told[-1]["step"]) == ("read", "kept")
    found = steps(tmp_path / "corpus", "web")
    assert found["lines"] == found["exact"] == 1 and found["minhash"] == 3 and found["contaminated"] == 1, found
    (short,) = (step for step in found if step.startswith("lengths: "))
    assert found[short] > 0
    assert report == read_json(tmp_path / "corpus" / "report.json")


def test_stages_that_find_nothing_give_what_streaming_gives(tmp_path: Path) -> None:
    web = [[f"part {part} {index}" for index in range(40)] for part in range(3)]
    seen: list[tuple[str, int]] = []
    streamed = build_corpus(recipe(tmp_path, {}, web=web), tmp_path / "streamed")
    made = recipe(tmp_path, {"dedup": [{"kind": "exact"}]}, web=web)
    assert build_corpus(made, tmp_path / "staged", lambda *news: seen.append(news)) == streamed
    for split in SPLITS:
        one, other = (list(documents(tmp_path / name, "web", split)) for name in ("streamed", "staged"))
        assert one == other
    histograms = [read_json(tmp_path / name / "histograms.json") for name in ("streamed", "staged")]
    assert histograms[0] == histograms[1]
    assert {stage: max(done for name, done in seen if name == stage) for stage, _ in seen} == {
        f"web: {stage}": 120 for stage in ("texts", "measure", "write")
    }


def test_the_first_of_documents_that_repeat_each_other_is_kept(tmp_path: Path) -> None:
    text = prose(0, 30)
    both = {"web": [text, prose(1, 30), text], "books": [prose(2, 30), prose(3, 30), text]}
    build_corpus(recipe(tmp_path, {"dedup": [{"kind": "exact"}]}, **both), tmp_path / "across")
    assert ids(tmp_path / "across", "web") == ["web-0-0", "web-0-1"]
    assert steps(tmp_path / "across", "books")["exact"] == 1
    books = {**both, "books": [*both["books"], prose(4, 30)]}
    build_corpus(recipe(tmp_path, {"dedup": [{"kind": "exact", "across": False}]}, **books), tmp_path / "within")
    assert ids(tmp_path / "within", "web") == ["web-0-0", "web-0-1"]
    assert ids(tmp_path / "within", "books") == ["books-0-0", "books-0-1", "books-0-2", "books-0-3"]


def test_clusters_show_what_was_kept_and_what_repeats_it(tmp_path: Path) -> None:
    text = prose(0, 30)
    web = [[f"alone {index}" for index in range(4)] + [text] * 3, [text] * 8]
    build_corpus(recipe(tmp_path, {"dedup": [{"kind": "exact"}]}, web=web), tmp_path / "corpus")
    (cluster,) = rows(tmp_path / "corpus" / "clusters.jsonl")
    assert (cluster["kind"], cluster["size"]) == ("exact", 11)
    assert cluster["kept"] == {"source": "web", "id": "web-0-4", "text": text}
    assert [each["id"] for each in cluster["dropped"]] == ["web-0-5", "web-0-6", "web-1-0", "web-1-1", "web-1-2"]


def test_drops_are_sampled_by_reason_with_their_scores(tmp_path: Path) -> None:
    web = [f"short {index}" for index in range(50)] + [prose(index, 100) for index in range(5)]
    sources = {"web": {"filter": [{"kind": "lengths", "min_characters": 200, "max_characters": 5000}]}}
    build_corpus(recipe(tmp_path, {"sources": sources}, web=[*web, "x" * 9000]), tmp_path / "corpus")
    samples = rows(tmp_path / "corpus" / "drops" / "web.jsonl")
    by_reason = [sum(row["reason"] == reason for row in samples) for reason in {row["reason"] for row in samples}]
    assert sorted(by_reason) == [1, 20]
    assert all(
        row["scores"]["lengths.characters"] == (9000 if len(row["text"]) == 2000 else len(row["text"]))
        for row in samples
    )
    found = read_json(tmp_path / "corpus" / "histograms.json")["web"]
    assert sum(found["scores"]["lengths.characters"]["before"]) == 56 and sum(found["characters"]["after"]) == 5


def test_edits_are_sampled_around_what_they_change(tmp_path: Path) -> None:
    far = "a word " * 300
    web = [f"{far}write to someone{index}@example.com{far}{index}" for index in range(3)]
    build_corpus(recipe(tmp_path, {"sources": {"web": {"edit": [{"kind": "pii"}]}}}, web=web), tmp_path / "corpus")
    samples = rows(tmp_path / "corpus" / "edits" / "web.jsonl")
    assert len(samples) == 3
    for row in samples:
        assert row["edit"] == "pii" and "@example.com" in row["before"] and "@example.com" not in row["after"]
        assert len(row["before"]) == 400 and sum(row["changes"].values()) == 1


def test_a_changed_threshold_scores_nothing_again(tmp_path: Path) -> None:
    web = [[f"text {part} {index}{' and more' * index}" for index in range(40)] for part in range(2)]

    def build(name: str, **fields: Any) -> dict[str, int]:
        sources = {"web": {"filter": [{"kind": "repeated-spans", **fields}]}}
        build_corpus(recipe(tmp_path, {"sources": sources}, web=web), tmp_path / name, artifacts=tmp_path / "artifacts")
        return steps(tmp_path / name, "web")

    first = build("one", max_repeats=20)
    texts, scores = (made(tmp_path / "artifacts", kind) for kind in ("texts", "scores"))
    second = build("two", max_repeats=30)
    assert first["kept"] < second["kept"]
    assert (texts, scores) == tuple(made(tmp_path / "artifacts", kind) for kind in ("texts", "scores"))
    build("three", max_repeats=30, max_span=1)
    assert made(tmp_path / "artifacts", "texts") == texts
    assert len(made(tmp_path / "artifacts", "scores")) == 2 * len(scores)
    assert not (tmp_path / "artifacts" / "written").exists()


def test_a_new_source_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    web, books = ([prose(first + index, 40) for index in range(9)] for first in (0, 50))
    dedup = {"dedup": [{"kind": "exact"}, {"kind": "minhash"}]}
    artifacts = tmp_path / "artifacts"
    build_corpus(recipe(tmp_path, {**dedup}, web=web), tmp_path / "one", artifacts=artifacts)
    before = {kind: made(artifacts, kind) for kind in ("texts", "signatures")}
    build_corpus(recipe(tmp_path, {**dedup}, web=web, books=books), tmp_path / "two", artifacts=artifacts)
    for kind, files in before.items():
        assert files.items() <= made(artifacts, kind).items()
        assert len(made(artifacts, kind)) == 2 * len(files)
    assert contents(tmp_path / "one")["web/train.jsonl.zst"] == contents(tmp_path / "two")["web/train.jsonl.zst"]


def test_a_new_file_of_a_source_leaves_its_others_as_they_are(tmp_path: Path) -> None:
    web = [[prose(100 * part + index, 40) for index in range(9)] for part in range(3)]
    sources = {"web": {"filter": [{"kind": "lengths", "min_characters": 9}], "edit": [{"kind": "pii"}]}}
    changes = {"dedup": [{"kind": "exact"}], "sources": sources}
    artifacts = tmp_path / "artifacts"
    build_corpus(recipe(tmp_path, {**changes}, web=web[1:]), tmp_path / "one", artifacts=artifacts)
    (tmp_path / "web" / "0.jsonl").rename(tmp_path / "web" / "b.jsonl")
    (tmp_path / "web" / "1.jsonl").rename(tmp_path / "web" / "c.jsonl")
    made = recipe(tmp_path, {**changes, "sources": {"web": {**sources["web"]}}})
    build_corpus(made, tmp_path / "two", artifacts=artifacts)
    before = {
        file.stat().st_ino for kind in ("texts", "scores", "signatures") for file in artifacts.glob(f"{kind}/*/*.*")
    }
    (tmp_path / "web" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in web[0]))
    build_corpus(made, tmp_path / "three", artifacts=artifacts)
    for kind, suffix in (("texts", "jsonl.zst"), ("scores", "parquet"), ("signatures", "npy")):
        (folder,) = {file.parent for file in artifacts.glob(f"{kind}/*/00002.{suffix}")}
        new = [file.name for file in sorted(folder.glob(f"*.{suffix}")) if file.stat().st_ino not in before]
        assert new == [f"00000.{suffix}"]
    fresh = tmp_path / "fresh"
    build_corpus(made, fresh)
    assert contents(tmp_path / "three") == contents(fresh)


def notes(folder: Path) -> Recipe:
    """A recipe of the text files in a folder, which go through the stages."""
    read = {"kind": "text", "path": str(folder)}
    return recipe(folder, {"sources": {"notes": {"read": read}}, "dedup": [{"kind": "exact"}]})


@pytest.mark.parametrize(("changed", "content"), [("b.txt", "b edited"), ("d.txt", "d is new"), ("b.txt", None)])
def test_a_group_of_small_files_is_read_again_when_any_of_them_changes(
    tmp_path: Path, changed: str, content: str | None
) -> None:
    """Though the group's first file, which names it, is the same."""
    texts = {f"{name}.txt": f"{name} as it was" for name in "abc"}
    (tmp_path / "notes").mkdir()
    for name, text in texts.items():
        (tmp_path / "notes" / name).write_text(text)
    build_corpus(notes(tmp_path / "notes"), tmp_path / "one", artifacts=tmp_path / "artifacts")
    texts[changed] = content
    if content is None:
        (tmp_path / "notes" / changed).unlink()
    else:
        (tmp_path / "notes" / changed).write_text(content)
    build_corpus(notes(tmp_path / "notes"), tmp_path / "two", artifacts=tmp_path / "artifacts")
    found = [document.text for split in SPLITS for document in documents(tmp_path / "two", "notes", split)]
    assert sorted(found) == sorted(filter(None, texts.values()))


def test_a_group_of_files_that_did_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_FILES", 2)
    (tmp_path / "notes").mkdir()
    for name in "abcd":
        (tmp_path / "notes" / f"{name}.txt").write_text(f"{name} as it was")
    build_corpus(notes(tmp_path / "notes"), tmp_path / "one", artifacts=tmp_path / "artifacts")
    (tmp_path / "notes" / "d.txt").write_text("d edited")
    build_corpus(notes(tmp_path / "notes"), tmp_path / "two", artifacts=tmp_path / "artifacts")
    for number, made in ((0, 1), (1, 2)):
        files = list(tmp_path.glob(f"artifacts/texts/*/{number:05d}.jsonl.zst"))
        assert len(files) == 2 and len({file.stat().st_ino for file in files}) == made


def test_a_source_that_gained_a_file_while_its_build_was_dead_has_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a dataset of the hub without a revision, whose files no fingerprint knows."""
    monkeypatch.setattr(pipeline, "inputs", lambda reader, seed: {})
    made = recipe(tmp_path, {"lines": {}}, web=[["one", "two"], ["three", "four"]])

    def killed(tasks: Sequence[Task], *others: Any) -> None:
        tasks[0].perform(lambda documents: None)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "perform", killed)
        build_corpus(made, tmp_path / "corpus", artifacts=tmp_path / "artifacts")
    (tmp_path / "web" / "+.jsonl").write_text(json.dumps({"text": "five", "id": "first"}) + "\n")
    build_corpus(made, tmp_path / "corpus", artifacts=tmp_path / "artifacts")
    assert ids(tmp_path / "corpus", "web") == ["first", "web-0-0", "web-0-1", "web-1-0", "web-1-1"]


def test_protected_texts_that_changed_in_place_are_read_again(tmp_path: Path) -> None:
    """Also by a process, such as a notebook's, that has read them before."""
    web = [prose(number, 30) for number in range(6)]
    against = {"path": str(tmp_path / "protected.jsonl"), "field": "text"}
    for number in (0, 1):
        (tmp_path / "protected.jsonl").write_text(json.dumps({"text": web[number]}) + "\n")
        made = recipe(tmp_path, {"decontaminate": {"against": [against]}}, web=web)
        build_corpus(made, tmp_path / str(number), artifacts=tmp_path / "artifacts")
        assert ids(tmp_path / str(number), "web") == [f"web-0-{other}" for other in range(6) if other != number]


def test_a_task_that_left_no_mark_is_done_again_alone(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    build_corpus(many(tmp_path), tmp_path / "whole", artifacts=artifacts)
    (manifest,) = (
        file
        for file in artifacts.glob("texts/*/manifest.json")
        if "00003.json" in file.read_text() and "pii" in file.read_text()
    )
    before = {file.name: file.stat().st_mtime_ns for file in manifest.parent.iterdir()}
    manifest.unlink()
    (manifest.parent / "00002.json").unlink()
    (manifest.parent / "00002.jsonl.zst").write_bytes(b"half of it")
    (manifest.parent / ".00002.jsonl.zst.0badcafe").write_bytes(b"left by the one that was killed")
    build_corpus(many(tmp_path), tmp_path / "again", artifacts=artifacts)
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    after = {file.name: file.stat().st_mtime_ns for file in manifest.parent.iterdir()}
    redone = {name for name in before if before[name] != after[name]}
    assert redone == {"manifest.json", *(name for name in before if name.startswith("00002"))}
    assert set(after) == set(before)


@pytest.fixture
def few_files() -> Iterator[None]:
    """Twenty more files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    handles = [os.dup(0) for _ in range(20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(handles) + 1, hard))
    for handle in handles:
        os.close(handle)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_parts_are_compared_with_few_files_open(tmp_path: Path, few_files: None) -> None:
    parts = range(60)
    for number in parts:
        np.save(tmp_path / f"{number:05d}.npy", np.array([[number % 50, 1], [number, 2]], np.uint64))
        counts = LineCounts(Lines(), tmp_path / f"{number:05d}.lines")
        counts.add(["a line of every part", f"a line of part {number}"])
        counts.close()
    table = Table.of({"web": [2] * len(parts)})
    drop_duplicates(table, Exact(kind="exact"), {"web": tmp_path}, tmp_path / "joined.npy")
    assert np.flatnonzero(table.codes).tolist() == [100, 102, 104, 106, 108, 110, 112, 114, 116, 118]
    assert len(repeated(Lines(), [tmp_path / f"{number:05d}.lines" for number in parts])) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield small
    subprocess.run(["umount", "-l", small], check=True)


@pytest.mark.parametrize(
    ("size", "dedup", "stage"),
    [(600_000, {"kind": "exact"}, "written"), (2_000, {"kind": "minhash", "bands": 10_000, "rows": 1}, "signatures")],
)
def test_a_disk_that_fills_up_is_told_in_one_line(
    tmp_path: Path, small_disk: Path, size: int, dedup: dict[str, Any], stage: str
) -> None:
    web = [random.Random(number).randbytes(size // 20).hex() for number in range(20)]
    made = recipe(tmp_path, {"dedup": [dedup]}, web=web)
    with pytest.raises(InputError, match=rf"artifacts/{stage}/.*: the disk is full; free some space"):
        build_corpus(made, tmp_path / "corpus", artifacts=small_disk / "artifacts")


def test_documents_are_on_the_disk_before_they_count_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync, assemble = set(), os.fsync, pipeline.assemble

    def syncing(handle: int) -> None:
        fsync(handle)
        synced.add(os.fstat(handle).st_ino)

    def assembling(out: Path, built: Built) -> Any:
        written = {file.stat().st_ino for file in built.written["web"].path.rglob("*.zst")}
        assert written and written <= synced
        return assemble(out, built)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(pipeline, "assemble", assembling)
    build_corpus(recipe(tmp_path, {"dedup": [{"kind": "exact"}]}, web=["one", "two"]), tmp_path / "corpus")


def test_a_damaged_stage_is_named(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    build_corpus(many(tmp_path), tmp_path / "corpus", artifacts=artifacts)
    for file in artifacts.glob("scores/*/00001.parquet"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"00001\.parquet: .*truncated.*build it again"):
        build_corpus(many(tmp_path), tmp_path / "corpus", artifacts=artifacts)


@pytest.mark.parametrize("staged", [False, True])
def test_what_cannot_be_read_is_set_aside_and_the_rest_goes_on(tmp_path: Path, staged: bool) -> None:
    made = recipe(tmp_path, {"dedup": [{"kind": "exact"}] if staged else []}, web=[f"text {n}" for n in range(30)])
    file = tmp_path / "web" / "0.jsonl"
    file.write_bytes(file.read_bytes() + b'{"text": "caf\xe9"}\n{"text": \n{"body": "x"}\n')
    with gzip.open(tmp_path / "web" / "1.jsonl.gz", "wt") as packed:
        packed.write('{"text": "whole"}\n' * 9)
    content = (tmp_path / "web" / "1.jsonl.gz").read_bytes()
    (tmp_path / "web" / "1.jsonl.gz").write_bytes(content[:-6])
    build_corpus(made, tmp_path / "corpus")
    bad = rows(tmp_path / "corpus" / "quarantine" / "web.jsonl")
    assert [row["place"].rpartition("/")[2] for row in bad] == [
        *(f"0.jsonl:{n}" for n in (31, 32, 33)),
        "1.jsonl.gz:10",
    ]
    assert all(row["reason"] for row in bad)
    found = steps(tmp_path / "corpus", "web")
    assert sum(count for step, count in found.items() if step.startswith("quarantined: ")) >= 4
    assert found["kept"] == (31 if staged else 39)


@pytest.mark.parametrize("staged", [False, True])
def test_too_much_that_cannot_be_read_stops_the_build(tmp_path: Path, staged: bool) -> None:
    changes = {"bad_share": 0.05, "dedup": [{"kind": "exact"}] if staged else []}
    made = recipe(tmp_path, changes, web=[f"text {n}" for n in range(38)])
    file = tmp_path / "web" / "0.jsonl"
    file.write_text(file.read_text() + '{"body": 1}\n{"body": 2}\n')
    build_corpus(made, tmp_path / "corpus")  # 2 of 40 rows
    file.write_text(file.read_text() + '{"body": 3}\n')
    where = r"corpus\.sources\.web: .*0\.jsonl:39: has no field 'text' \(fields there: body\); set read\.field"
    with pytest.raises(InputError, match=where + r".*\(3 of 41 rows are bad; corpus\.bad_share allows 0\.05"):
        build_corpus(made, tmp_path / "corpus")


def test_a_source_of_which_nothing_is_left_is_named_with_what_took_it(tmp_path: Path) -> None:
    sources = {"web": {"filter": [{"kind": "lengths", "min_characters": 999}]}}
    made = recipe(tmp_path, {"sources": sources}, web=["a", "b", "c"])
    with pytest.raises(InputError, match=r"corpus\.sources\.web: no document is left of 3: 'lengths: .*' took 3"):
        build_corpus(made, tmp_path / "built" / "corpus")
    assert not any((tmp_path / "built").iterdir())


@pytest.mark.parametrize("blank", [[" "], ["", "\n"]])
def test_a_part_without_text_and_a_source_without_text(tmp_path: Path, blank: list[str]) -> None:
    sources = {
        "web": {"filter": [{"kind": "lengths", "min_characters": 5}, {"kind": "lengths", "max_characters": 900}]}
    }
    made = recipe(
        tmp_path, {**EVERYTHING, "sources": sources}, web=[blank, [prose(0, 30), "a", prose(1, 30), "b" * 999]]
    )
    build_corpus(made, tmp_path / "corpus")
    found = steps(tmp_path / "corpus", "web")
    assert found["no text"] == len(blank) and found["kept"] == 2
    assert [count for step, count in found.items() if step.startswith(("lengths: ", "lengths-#2: "))] == [1, 1]
    with pytest.raises(InputError, match=r"corpus\.sources\.books: no document with any text in it; check its path"):
        build_corpus(recipe(tmp_path, {**EVERYTHING}, books=blank), tmp_path / "empty")


def test_lines_are_removed_before_filters_look(tmp_path: Path) -> None:
    notice = "All rights reserved, and a long notice that says so on every page."
    web = [f"{notice}\nshort {index}" for index in range(10)] + [f"{notice}\n{prose(index, 30)}" for index in range(5)]
    changes = {
        "lines": {"max_documents": 5},
        "sources": {"web": {"filter": [{"kind": "lengths", "min_characters": 60}]}},
    }
    build_corpus(recipe(tmp_path, changes, web=web), tmp_path / "corpus")
    left = [document.text for split in SPLITS for document in documents(tmp_path / "corpus", "web", split)]
    assert len(left) == 6 and sum(notice in text for text in left) == 1


def test_a_capped_source_reads_its_first_documents(tmp_path: Path) -> None:
    parts = [[f"part {part} {index}" for index in range(6)] for part in range(3)]
    sources = {"web": {"documents": 8}}
    build_corpus(recipe(tmp_path, {"sources": sources, "dedup": [{"kind": "exact"}]}, web=parts), tmp_path / "corpus")
    assert ids(tmp_path / "corpus", "web") == [f"web-0-{n}" for n in range(6)] + ["web-1-0", "web-1-1"]


def test_facts_of_documents_are_kept(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html><body><p>One paragraph of a page.</p></body></html>")
    for number in range(3):
        (tmp_path / f"{number}.py").write_text(f"print({number})\n" * 9)
    sources = {"code": {"read": {"kind": "code", "path": str(tmp_path)}}}
    build_corpus(recipe(tmp_path, {"sources": sources, "dedup": [{"kind": "exact"}]}), tmp_path / "corpus")
    found = [document for split in SPLITS for document in documents(tmp_path / "corpus", "code", split)]
    assert all(document.facts for document in found)


@settings(max_examples=50)
@drawn(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), max_size=80), st.randoms())
def test_samples_do_not_depend_on_how_documents_were_dealt(given: list[tuple[str, int]], random: Any) -> None:
    given = sorted(set(given))
    whole = Samples()
    for reason, name in given:
        whole.add(reason, str(name), lambda reason=reason, name=name: {"reason": reason, "id": str(name)})
    parts = [Samples() for _ in range(3)]
    for reason, name in given:
        row = {"reason": reason, "id": str(name)}
        random.choice(parts).add(reason, str(name), lambda row=row: row)
    joined = merged([row for part in parts for row in part.rows()], "reason")
    key = lambda row: (row["reason"], row["id"])  # noqa: E731
    assert sorted(joined, key=key) == sorted(whole.rows(), key=key)
