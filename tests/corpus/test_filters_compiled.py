"""Compiled measures equal the plain ones, which define them: on texts made to tell them apart, and on real ones."""

import gzip
import json
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from smelt.corpus.document import Document
from smelt.corpus.edits import c4_lines
from smelt.corpus.edits.table import EDITS
from smelt.corpus.filters import repeated_spans
from smelt.corpus.filters.measured import Measured
from smelt.corpus.filters.table import FILTERS
from smelt.recipe.sections.edits import C4Lines
from smelt.recipe.sections.filters import HeuristicFilter, RepeatedSpans

CASES: tuple[dict[str, Any], ...] = (
    {"kind": "gopher-quality"},
    {"kind": "gopher-quality", "stop_words": ["", "a", "ß", "don't", "你", "x.y", *map(str, range(100))]},
    {"kind": "gopher-repetition"},
    {"kind": "gopher-repetition", "max_top_ngram": {1: 1, 3: 1}, "max_duplicate_ngram": {1: 1, 2: 1, 40: 1}},
    {"kind": "gopher-repetition", "max_top_ngram": {}, "max_duplicate_ngram": {}},
    {"kind": "c4-quality"},
    {"kind": "fineweb-quality"},
    {"kind": "fineweb-quality", "short_line": 0},
    {"kind": "repeated-spans"},
    {"kind": "repeated-spans", "max_span": 1},
    {"kind": "lengths"},
    {"kind": "symbols"},
)
EDITED: tuple[dict[str, Any], ...] = (
    {},
    {"punctuation": False, "min_words": 0, "max_word_length": None, "citations": False},
    {"max_word_length": 3, "javascript": False},
    {"punctuation": False, "policy": False},
)
PIECES = st.sampled_from(
    [
        *("a", "ab", "A", "b c", "the", "don't", "U.S.", "x.y", "3.14", "_", "ß", "é", "e\u0301", "\u0301", "नमस्ते"),
        *(
            "你好",
            "。",
            "か",
            "コー",
            "㐀",
            "\U00020001",
            "\uff11",
            "٣",
            "²",
            "Ǆ",
            "\u212a",
            "İ",
            "😀",
            "\ud800",
            "\ufffd",
        ),
        *(
            ".",
            "..",
            "...",
            "…",
            "!",
            "?!",
            '."',
            ".)",
            "।",
            "\uff01」",
            "-",
            "--",
            "•",
            "#",
            "=",
            "'",
            "\u2019",
            "[",
            "]",
            "{",
        ),
        *(" ", "  ", "\t", "\n", "\n\n", "\n \n", "\r\n", "\r", "\x0b", "\x1c", "\x1f", "\x85", "\u2028", "\u00a0"),
        *("Ã©", "â€™", "ð\x9f\x98\x80", "Ü“", "\x00", "\ue000", "[1]", "[edit]", "[citation needed].", "[12"),
        *("lorem ipsum", "Lorem IPSUM", "JavaScript", "javascrİpt", "Terms of use", "use cooKies", "privacy policy"),
        *("One two three.", "One two three...", "The end of a line.\n", "one two three four five six seven "),
    ]
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=40).map("".join),
    st.lists(PIECES, max_size=6).map(lambda pieces: "".join(pieces * 12)),
    st.text(),
)


@cache
def measured(index: int) -> Measured:
    section = TypeAdapter(HeuristicFilter).validate_python(CASES[index])
    scorer = FILTERS[section.kind](section)
    assert isinstance(scorer, Measured) and scorer.compiled is not None
    return scorer


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: CASES[index]["kind"])
@given(texts=st.lists(TEXTS, max_size=4))
@settings(deadline=None)
def test_compiled_scores_equal_plain_ones(index: int, texts: list[str]) -> None:
    scorer = measured(index)
    assert scorer.compiled is not None
    np.testing.assert_array_equal(scorer.compiled(texts), scorer.plain(texts))


@pytest.mark.parametrize("options", EDITED, ids=str)
@given(text=TEXTS)
@settings(deadline=None)
def test_compiled_edits_equal_plain_ones(options: dict[str, Any], text: str) -> None:
    section = C4Lines(kind="c4-lines", **options)
    fast = c4_lines.compiled(section)
    assert fast is not None
    assert fast([text]) == [c4_lines.edit(text, section)]


@given(st.lists(PIECES, max_size=4))
@settings(deadline=None, max_examples=8)
def test_long_words_and_many_lines_need_no_special_room(pieces: list[str]) -> None:
    text = "".join(pieces) + "x" * 9000 + " y" + "x" * 9000 + "\n" + "ab c. [\nd e f.\n \nGo on now.  \n" * 200
    for index in range(len(CASES)):
        scorer = measured(index)
        assert scorer.compiled is not None
        np.testing.assert_array_equal(scorer.compiled([text, text]), scorer.plain([text, text]))
    section = C4Lines(kind="c4-lines", min_words=2)
    assert c4_lines.compiled(section)([text]) == [c4_lines.edit(text, section)]  # type: ignore[misc]


def test_real_texts_of_many_languages_score_alike(shared_data: Path) -> None:
    texts = sample(shared_data, 25_000)
    section = C4Lines(kind="c4-lines")
    for index in range(len(CASES)):
        scorer = measured(index)
        assert scorer.compiled is not None
        np.testing.assert_array_equal(scorer.compiled(texts), scorer.plain(texts))
    assert c4_lines.compiled(section)(texts) == [c4_lines.edit(text, section) for text in texts]  # type: ignore[misc]


def sample(shared_data: Path, characters: int) -> list[str]:
    """The first documents of each file, up to so many characters."""
    texts: list[str] = []
    for file in sorted((shared_data / "pretrain").glob("*.jsonl.gz")):
        room = characters
        with gzip.open(file, "rt") as rows:
            while room > 0 and (row := next(rows, "")):
                texts.append(json.loads(row)["text"][:room])
                room -= len(texts[-1])
    return texts


def test_a_fast_path_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain measure is the definition, and a difference is said aloud."""
    from smelt.corpus.filters.compiled import repeated_spans as compiled

    right = compiled.measure_all
    monkeypatch.setattr(compiled, "measure_all", lambda batch, span: right(batch, span) + 1)
    scorer = repeated_spans.scorer(RepeatedSpans(kind="repeated-spans"))
    documents = [Document("ha ha ha", "0", "s")]
    with pytest.warns(UserWarning, match="repeated-spans: the fast path differs"):
        assert scorer.score(documents)["repeats"].tolist() == [3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scorer.score(documents * 100)["repeats"].tolist() == [3] * 100


def test_where_numba_is_missing_the_plain_path_goes_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("filters.compiled.repeated_spans", "edits.c4_compiled"):
        monkeypatch.delitem(sys.modules, f"smelt.corpus.{module}", raising=False)
    for module in ("filters.compiled.text", "filters.compiled.repeats"):
        monkeypatch.setitem(sys.modules, f"smelt.corpus.{module}", None)
    with pytest.warns(UserWarning, match=r"filters take some 20 times as long; run: pip install"):
        scorer = repeated_spans.scorer(RepeatedSpans(kind="repeated-spans"))
    assert scorer.compiled is None
    assert scorer.score([Document("ha ha", "0", "s")])["repeats"].tolist() == [2]
    with pytest.warns(UserWarning, match=r"filters take some 20 times as long; run: pip install"):
        assert EDITS["c4-lines"](C4Lines(kind="c4-lines"))("This one stays.\nMenu")[0] == "This one stays."


def test_an_edit_takes_the_fast_path_with_no_word_of_difference() -> None:
    edit = EDITS["c4-lines"](C4Lines(kind="c4-lines"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(100):
            text = f"Number {number} has three words.\nMenu\n"
            assert edit(text) == (f"Number {number} has three words.", {"lines without closing punctuation": 1})
