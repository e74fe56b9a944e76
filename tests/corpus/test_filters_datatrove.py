"""The four published filters decide as datatrove's do, and for the same reasons, when both split words alike."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from smelt.corpus.document import Document
from smelt.corpus.edits.table import EDITS
from smelt.corpus.filters.splitter import split_sentences, split_words
from smelt.corpus.filters.table import FILTERS, reasons
from smelt.recipe.sections.edits import C4Lines
from smelt.recipe.sections.filters import HeuristicFilter

filters: Any = pytest.importorskip("datatrove.pipeline.filters")
from datatrove.data import Document as Theirs  # noqa: E402

NAMES = {
    "gopher_short_doc": "too few words",
    "gopher_long_doc": "too many words",
    "gopher_below_avg_threshold": "words too short",
    "gopher_above_avg_threshold": "words too long",
    "gopher_too_many_hashes": "too many hash signs",
    "gopher_too_many_ellipsis": "too many ellipses",
    "gopher_too_many_bullets": "too many bullet lines",
    "gopher_too_many_end_ellipsis": "too many lines end with an ellipsis",
    "gopher_below_alpha_threshold": "too few alphabetic words",
    "gopher_enough_stop_words": "too few stop words",
    "dup_para_frac": "too many duplicate paragraphs",
    "dup_para_char_frac": "too much text in duplicate paragraphs",
    "dup_line_frac": "too many duplicate lines",
    "dup_line_char_frac": "too much text in duplicate lines",
    **{f"top_{n}_gram": f"one {n}-gram too frequent" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"too many duplicate {n}-grams" for n in range(5, 11)},
    "lorem_ipsum": "lorem ipsum",
    "curly_bracket": "curly brackets",
    "too_few_sentences": "too few sentences",
    "line_punct_ratio": "too few lines end with punctuation",
    "short_line_ratio": "too many short lines",
    "char_dup_ratio": "too much text in duplicate lines",
    "list_ratio": "too many line ends",
    "empty": "too few lines end with punctuation",
}
THEIRS = {
    "gopher-quality": filters.GopherQualityFilter,
    "gopher-repetition": filters.GopherRepetitionFilter,
    "fineweb-quality": filters.FineWebQualityFilter,
}


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their filters with our splitters in place of spaCy."""
    folder = "datatrove.pipeline.filters"
    for module in ("gopher_quality_filter", "gopher_repetition_filter", "fineweb_quality_filter"):
        monkeypatch.setattr(f"{folder}.{module}.split_into_words", lambda text, language: split_words(text))
    monkeypatch.setattr(f"{folder}.c4_filters.split_into_sentences", lambda text, language: split_sentences(text))


def theirs(chosen: Any, text: str) -> tuple[str | None, str]:
    """Why their filter drops a text, None where it does not, and the text as the filter leaves it."""
    document = Theirs(text=text, id="0")
    verdict = chosen.filter(document)
    return (None if verdict is True else NAMES[verdict[1]]), document.text


def ours(kind: str, texts: list[str]) -> list[list[str]]:
    """The reasons of each text, in order."""
    section = TypeAdapter(HeuristicFilter).validate_python({"kind": kind})
    masks = reasons(section, FILTERS[kind](section).score([Document(text, "0", "s") for text in texts]))
    return [[reason for reason, mask in masks.items() if mask[index]] for index in range(len(texts))]


def compare(kind: str, texts: list[str]) -> set[str | None]:
    """Asserts that the first reason is theirs; returns all that occurred."""
    seen: set[str | None] = set()
    chosen = THEIRS[kind]()
    for text, found in zip(texts, ours(kind, texts), strict=True):
        expected, _ = theirs(chosen, text)
        assert (found[0] if found else None) == expected, (found, text[:300])
        seen.add(expected)
    return seen


def compare_c4(texts: list[str]) -> set[str | None]:
    """Asserts the same of the edit and the filter together, and that what stays is the same text."""
    edit = EDITS["c4-lines"](C4Lines(kind="c4-lines"))
    edited = [edit(text)[0] for text in texts]
    seen: set[str | None] = set()
    chosen = filters.C4QualityFilter()
    for text, left, found in zip(texts, edited, ours("c4-quality", edited), strict=True):
        expected, remains = theirs(chosen, text)
        assert bool(found) == (expected is not None), (found, expected, text[:300])
        assert expected is None or expected in found
        assert found or left == remains
        seen.add(expected)
    return seen


def documents(shared_data: Path, characters: int) -> Iterable[str]:
    """Real documents of many languages, whole and in pieces of paragraphs, which is where thresholds bite."""
    import gzip
    import json

    for file in sorted((shared_data / "pretrain").glob("*.jsonl.gz")):
        room = characters
        with gzip.open(file, "rt") as rows:
            while room > 0 and (row := next(rows, "")):
                text = json.loads(row)["text"][:20_000]
                room -= len(text)
                yield text
                yield from (text[start : start + 700] for start in range(0, len(text), 3_500))


@pytest.mark.parametrize("kind", THEIRS)
def test_decisions_on_real_documents_are_datatroves(kind: str, shared_data: Path) -> None:
    seen = compare(kind, list(documents(shared_data, 15_000)))
    assert None in seen and len(seen) >= 3


def test_c4_on_real_documents_is_datatroves(shared_data: Path) -> None:
    seen = compare_c4(list(documents(shared_data, 40_000)))
    assert seen == {None, "curly brackets", "too few sentences"}


def planted(seed: int) -> str:
    """A text with some of everything that a rule looks for."""
    draw = random.Random(seed)
    words = draw.choices(
        [
            "the",
            "and",
            "to",
            "of",
            "house",
            "garden",
            "tree",
            "a",
            "I",
            "#",
            "...",
            "…",
            "12",
            "...",
            "incomprehensibly",
        ],
        weights=[draw.choice((1, 1, 8)) for _ in range(15)],
        k=draw.choice((20, 60, 200)),
    )
    ends = draw.choices(
        [" ", "\n", "\n\n", ". ", ".\n", "...\n", "\n- ", "\n• "],
        [draw.choice((0.1, 9)) for _ in range(8)],
        k=len(words),
    )
    phrases = (
        *("We use cookies on this page, friend.", "Please enable JavaScript now.", "Lorem ipsum dolor sit."),
        *("if (x) { return y; }.", "He said so.[1] She did not.[citation needed]", "Read our Privacy Policy."),
        *(f"{'long' * 300} word here.", "JavaScript and lorem ipsum meet.", "Terms of use {and} more."),
    )
    text = "".join(word + end for word, end in zip(words, ends, strict=True))
    extra = "\n".join(draw.choices(phrases, k=draw.choice((0, 0, 1, 2)))) + "\n"
    body = "This is one more sentence of it. And that is another.\n" * draw.choice((0, 1, 5))
    return text * draw.choice((1, 1, 1, 2)) + extra + body


@pytest.mark.parametrize("kind", THEIRS)
def test_decisions_on_planted_junk_are_datatroves(kind: str) -> None:
    assert len(compare(kind, [planted(seed) for seed in range(400)])) > 3


def test_c4_on_planted_junk_is_datatroves() -> None:
    assert compare_c4([planted(seed) for seed in range(800)]) == {
        *(None, "lorem ipsum", "curly brackets", "too few sentences"),
    }
