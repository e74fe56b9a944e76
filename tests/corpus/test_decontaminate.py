"""Documents that repeat a protected text are found, however it was copied; others are not."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus import streams
from smelt.corpus.decontaminate import Protected, inputs
from smelt.corpus.document import Document
from smelt.errors import InputError
from smelt.recipe.sections.protected import Decontaminate

LONG = "A farmer keeps seven hens and each of them lays two eggs on every day but Sunday."
SHORT = "Who painted the Mona Lisa?"
TINY = "Why is that?"


@pytest.fixture
def against(tmp_path: Path) -> Any:
    """Writes texts to a file and returns what protects them."""

    def write(texts: list[str], ngram: int = 13) -> Protected:
        file = tmp_path / "protected.jsonl"
        file.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
        return Protected(section(file, ngram=ngram))

    return write


def section(path: Path, field: str = "question", ngram: int = 13) -> Decontaminate:
    return Decontaminate.model_validate({"against": [{"path": str(path), "field": field}], "ngram": ngram})


def hits(protected: Protected, *texts: str) -> list[int]:
    return protected.score([Document(text, str(number), "web") for number, text in enumerate(texts)])["hits"].tolist()


def test_a_copy_is_found_whatever_stands_around_it(against: Any) -> None:
    """EVAL-11"""
    words = len(LONG.split())
    assert hits(against([LONG]), f"Look: {LONG} Isn't it?", LONG.upper(), "nothing of the kind") == [words - 12] * 2 + [
        0
    ]


def test_case_punctuation_accents_and_line_breaks_hide_no_copy(against: Any) -> None:
    """EVAL-11"""
    protected = against([LONG])
    changed = LONG.upper().replace(" ", " \n* ").replace("E", "\u00c9")
    assert hits(protected, changed, LONG.replace(",", "").replace(".", "")) == [5, 5]


def test_a_part_of_fewer_words_than_the_ngram_is_no_copy(against: Any) -> None:
    part = " ".join(LONG.split()[:12])
    assert hits(against([LONG]), part) == [0]
    assert hits(against([LONG], ngram=12), part) == [1]
    assert hits(against([LONG], ngram=4), part) == [9]


def test_a_protected_text_shorter_than_the_ngram_is_looked_for_whole(against: Any) -> None:
    protected = against([LONG, SHORT])
    scores = protected.score([Document(f"Quiz. {SHORT} Leonardo.", "", ""), Document("who painted the mona", "", "")])
    assert scores["hits"].tolist() == [1, 0]
    assert scores["match"].tolist() == ["who painted the mona lisa", ""]


def test_a_text_of_under_five_words_is_not_looked_for_and_counted_in_a_warning(against: Any) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts have under 5 words"):
        protected = against([LONG, TINY])
    assert hits(protected, TINY) == [0]


def test_the_match_is_the_first_shared_run_of_words(against: Any) -> None:
    scores = against([LONG], 6).score([Document("Once, A FARMER keeps: seven hens and each of them", "", "")])
    assert scores["match"].tolist() == ["a farmer keeps seven hens and"]


def test_a_protected_file_without_usable_text_is_bad_input(against: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus.decontaminate.against.0: field 'question'.* no text of 5 words"):
        against([TINY])
    with pytest.raises(InputError, match=r"corpus.decontaminate.against.0: .*no field 'answer'"):
        Protected(section(tmp_path / "protected.jsonl", "answer"))
    with pytest.raises(InputError, match=r"corpus.decontaminate.against.0: .*no such file"):
        inputs(section(tmp_path / "missing.jsonl"))


def test_parquet_files_and_folders_of_them_protect_too(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"prompt": [LONG]}), tmp_path / "a.parquet")
    for path in (tmp_path / "a.parquet", tmp_path):
        assert hits(Protected(section(path, "prompt")), LONG) == [5]


def test_what_a_fingerprint_takes_changes_with_the_files(tmp_path: Path) -> None:
    file = tmp_path / "protected.jsonl"
    file.write_text(json.dumps({"question": LONG}))
    before = inputs(section(file))
    file.write_text(json.dumps({"question": LONG + "!"}))
    assert json.loads(json.dumps(before)) != json.loads(json.dumps(inputs(section(file))))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rows_of_a_protected_file_may_have_the_same_id(tmp_path: Path, suffix: str) -> None:
    """As files have that were joined from several, each of which counts from 0."""
    rows = [{"question": LONG, "id": 0}, {"question": SHORT, "id": 0}]
    if suffix == "jsonl":
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert hits(Protected(section(tmp_path / f"a.{suffix}")), LONG, SHORT) == [5, 1]


def test_a_long_match_takes_no_room_in_the_rows_of_others(against: Any) -> None:
    long = " ".join(f"{number}{'x' * 10_000}" for number in range(5))
    texts = [long] + ["nothing of the kind"] * 99
    protected = against([long])
    for score in (protected.fast, protected.plain):
        _, match = score(texts)
        assert len(match[0]) > 50_000 and match.nbytes == 8 * len(texts)


@given(st.lists(st.text("ab \u4e2d.", max_size=30), max_size=5))
def test_compiled_and_plain_matching_are_the_same(tmp_path_factory: Any, texts: list[str]) -> None:
    file = tmp_path_factory.mktemp("protected") / "protected.jsonl"
    rows = ["a b a b a b a b", "\u4e2d\u4e2d\u4e2d a \u4e2d", "b b b b b b"]
    file.write_text("".join(json.dumps({"question": text}) + "\n" for text in rows))
    protected = Protected(section(file, ngram=6))
    for fast, plain in zip(protected.fast(texts), protected.plain(texts), strict=True):
        assert np.array_equal(fast, plain)


def test_every_planted_benchmark_question_is_found_and_clean_text_is_left(shared_data: Path) -> None:
    """EVAL-11"""
    test = shared_data / "eval" / "gsm8k_test.jsonl.gz"
    protected = Protected(section(test))
    clean = [
        Document(json.loads(line)["text"], str(number), name)
        for name in ("en_wikitext2", "math_gsm8k_train", "en_textbooks")
        for number, line in streams.lines(shared_data / "pretrain" / f"{name}.jsonl.gz")
    ]
    batches = [clean[first : first + 100] for first in range(0, len(clean), 100)]
    found = np.concatenate([protected.score(batch)["hits"] for batch in batches])
    assert np.mean(found > 0) < 0.01

    draw = random.Random(0)
    questions = [json.loads(line)["question"] for _, line in streams.lines(test)]
    planted = [f"{draw.choice(clean).text[:200]}\nQ: {question.title()}\nA:" for question in questions]
    assert min(hits(protected, *planted)) > 0
