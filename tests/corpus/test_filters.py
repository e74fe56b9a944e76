"""What each heuristic filter measures, by values worked out by hand, and what it drops."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from smelt.corpus.document import Document
from smelt.corpus.filters.table import FILTERS, RULES, reasons
from smelt.recipe.sections.filters import Filter, HeuristicFilter

SENTENCE = "All that we have to do is to be with the others of the town.\n"
CLEAN = """\
The first potters of the valley dug their clay from the banks of a slow river, two days by foot from the sea.
They had no wheel, and built each jar by hand from long coils that were pressed together and smoothed.
Fire was the hard part: a kiln too cold leaves clay soft, and one that heats too fast breaks all it holds.
Most families fired in autumn, when dry wood was plenty and the fields asked for less work than in spring.
Traders from the coast brought salt and shells, and went home with bowls whose red glaze nobody there could copy.
Have you ever wondered why so few whole jars remain?
Children were taught to knead before they could read, and many never learned any other trade.
Later a mill came, then a road, and at last cheap tin from the city, which weighs little and does not break.
By the end of the century three workshops were left, of which one still opens its doors to visitors.
What they sell is plain: cups, plates, and now and then a copy of some old jar that stands in a museum.
"""


def section(kind: str, **fields: Any) -> Filter:
    chosen: Filter = TypeAdapter(HeuristicFilter).validate_python({"kind": kind, **fields})
    return chosen


def scores(text: str, kind: str, **fields: Any) -> dict[str, float]:
    columns = FILTERS[kind](section(kind, **fields)).score([Document(text, "0", "s")])
    return {name: float(column[0]) for name, column in columns.items()}


def dropped(text: str, kind: str, **fields: Any) -> list[str]:
    chosen = section(kind, **fields)
    columns = FILTERS[kind](chosen).score([Document(text, "0", "s"), Document(CLEAN, "1", "s")])
    return [reason for reason, mask in reasons(chosen, columns).items() if mask[0]]


KINDS = ("gopher-quality", "gopher-repetition", "c4-quality", "fineweb-quality", "repeated-spans", "lengths", "symbols")


@pytest.mark.parametrize("kind", KINDS)
def test_clean_text_passes_every_filter_as_it_comes(kind: str) -> None:
    assert dropped(CLEAN, kind) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_text_has_scores_too(kind: str) -> None:
    assert set(scores("", kind).values()) == {0.0}


@pytest.mark.parametrize("kind", KINDS)
def test_no_documents_have_no_scores(kind: str) -> None:
    columns = FILTERS[kind](section(kind)).score([])
    assert columns and all(len(column) == 0 for column in columns.values())


def test_gopher_quality_counts_words_lines_and_signs() -> None:
    text = "• The # dog and\n  - 42 cats...\nrun…\n"
    # • The dog and 42 cats run are words (a bullet is no punctuation to CCNet); # - ... … are not
    assert scores(text, "gopher-quality") == pytest.approx(
        {
            "words": 7,
            "word_length": (1 + 3 + 3 + 3 + 2 + 4 + 3) / 7,
            "hashes": 1 / 11,
            "ellipses": 2 / 11,
            "bullet_lines": 2 / 3,
            "ellipsis_lines": 2 / 3,
            "alphabetic_words": 5 / 11,
            "stop_words": 1,  # "The" is not "the"
        }
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The dog and the cat.", "too few words"),
        (SENTENCE * 20_000, "too many words"),
        ("to be of a I it " * 50, "words too short"),
        ("extraordinarily and complications " * 50, "words too long"),
        (SENTENCE * 9 + "# " * 30, "too many hash signs"),
        (SENTENCE * 9 + "and so on... " * 30, "too many ellipses"),
        (f"- {SENTENCE}" * 9, "too many bullet lines"),
        (SENTENCE.replace(".", "...") * 9, "too many lines end with an ellipsis"),
        (SENTENCE * 9 + "4 8 15 16 23 42 " * 10, "too few alphabetic words"),
        ("cat dog horse cow sheep goat " * 20, "too few stop words"),
    ],
)
def test_gopher_quality_drops_what_table_a1_names(text: str, reason: str) -> None:
    assert reason in dropped(text, "gopher-quality")


def test_thresholds_and_stop_words_are_the_sections_own() -> None:
    german = "der Hund und die Katze sind auf dem Weg in das Dorf\n" * 9
    assert dropped(german, "gopher-quality") == ["too few stop words"]
    assert dropped(german, "gopher-quality", stop_words=("der", "und", "das")) == []
    assert dropped(german, "gopher-quality", min_stop_words=None) == []
    assert "too few words" in dropped(german, "gopher-quality", min_words=1000)


def test_gopher_repetition_measures_paragraphs_lines_and_ngrams() -> None:
    text = "a b\n\na b\nc d\n\n\na b"
    values = scores(text, "gopher-repetition", max_top_ngram={1: 0.5, 2: 0.2}, max_duplicate_ngram={2: 0.1, 3: 0.1})
    assert len(text) == 18
    assert values == pytest.approx(
        {
            "duplicate_paragraphs": 1 / 3,  # "a b", "a b\nc d", "a b"
            "duplicate_paragraph_characters": 3 / 18,
            "duplicate_lines": 2 / 4,
            "duplicate_line_characters": 6 / 18,
            "top_1_gram": 3 / 18,  # a or b, three times
            "top_2_gram": 9 / 18,  # "a b", three times
            "duplicate_2_grams": 4 / 18,  # ab ba [ab] cd da(first) ... [ab]
            "duplicate_3_grams": 0,
        }
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one\n\none\n\ntwo", "too many duplicate paragraphs"),
        (f"{CLEAN}\n\n" * 2, "too much text in duplicate paragraphs"),
        (CLEAN + "one\n" * 9, "too many duplicate lines"),
        (CLEAN + CLEAN, "too much text in duplicate lines"),
        ("buy shoes " * 9 + CLEAN[:200], "one 2-gram too frequent"),
        ("buy new shoes " * 9 + CLEAN[:200], "one 3-gram too frequent"),
        ("buy new shoes today " * 9 + CLEAN[:200], "one 4-gram too frequent"),
        *((CLEAN + CLEAN.replace("\n", " "), f"too many duplicate {n}-grams") for n in range(5, 11)),
    ],
)
def test_gopher_repetition_drops_what_table_a1_names(text: str, reason: str) -> None:
    assert reason in dropped(text, "gopher-repetition")


def test_only_the_sizes_of_ngrams_not_their_limits_change_scores() -> None:
    usual, stricter, fewer = (
        section("gopher-repetition", max_top_ngram=top) for top in ({2: 0.2, 3: 0.1}, {2: 0.1, 3: 0.1}, {2: 0.2})
    )
    assert usual.scoring() == stricter.scoring() != fewer.scoring()


def test_c4_quality_drops_placeholders_code_and_pages_of_few_sentences() -> None:
    assert scores("Lorem ipsum {a}. LOREM IPSUM.", "c4-quality") == {
        "lorem_ipsum": 2,
        "curly_brackets": 1,
        "sentences": 2,
    }
    assert dropped(f"{CLEAN}Lorem Ipsum dolor.", "c4-quality") == ["lorem ipsum"]
    assert dropped(f"{CLEAN}if (a) {{ b }}.", "c4-quality") == ["curly brackets"]
    assert dropped("One. Two. Three. Four", "c4-quality") == ["too few sentences"]
    assert dropped("One. Two. Three. Four\nFive", "c4-quality") == []


def test_fineweb_quality_measures_lines_that_are_not_blank() -> None:
    text = "A line that ends as one should.\n\n  \nshort\nshort\nanother short line\n"
    assert scores(text, "fineweb-quality", short_line=10) == pytest.approx(
        {
            "punctuated_lines": 1 / 4,
            "short_lines": 2 / 4,
            "duplicate_characters": 5 / (len(text) - 6),
            "newlines": 6 / 13,
        }
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no end\n" * 3 + CLEAN.replace(".", ""), "too few lines end with punctuation"),
        (CLEAN + "This ends.\nThat ends.\n" * 20, "too many short lines"),
        (CLEAN + CLEAN[:200], "too much text in duplicate lines"),
        ("one\ntwo\nthree words\n", "too many line ends"),
        (" \n\n", "too few lines end with punctuation"),
    ],
)
def test_fineweb_quality_drops_what_it_names(text: str, reason: str) -> None:
    assert reason in dropped(text, "fineweb-quality")


@pytest.mark.parametrize("span", range(1, 14))
def test_a_span_of_1_to_13_words_that_stands_32_times_is_caught(span: int) -> None:
    """DATA-14: planted repeats are caught, and 31 of them are not yet too many."""
    planted = [f"w{word}" for word in range(span)]
    for times, caught in ((32, True), (31, False)):
        text = f"{CLEAN}\n{' '.join(planted * times)}\n{CLEAN}"
        assert scores(text, "repeated-spans")["repeats"] == times
        assert bool(dropped(text, "repeated-spans")) == caught


def test_drawn_lines_are_no_repeats() -> None:
    """DATA-14: headings and tables of technical text are kept."""
    assert scores(f"{CLEAN}\nHeading\n{'~' * 80}\n{CLEAN}\n{'─' * 80}\n", "repeated-spans")["repeats"] == 1


@pytest.mark.parametrize("source", ["en_textbooks", "en_technical_peps", "code_python_stdlib", "zh"])
def test_no_real_document_repeats_itself_so_often(source: str, shared_data: Path) -> None:
    """DATA-14: clean text is kept."""
    with gzip.open(shared_data / "pretrain" / f"{source}.jsonl.gz", "rt") as rows:
        documents = [Document(json.loads(row)["text"], "0", source) for row in rows]
    chosen = section("repeated-spans")
    masks = reasons(chosen, FILTERS["repeated-spans"](chosen).score(documents)).values()
    assert len(documents) > 200 and not any(mask.any() for mask in masks)


def test_repeats_apart_or_of_longer_spans_are_no_repeats() -> None:
    """DATA-14: clean text is kept."""
    assert scores(CLEAN, "repeated-spans")["repeats"] == 1
    apart = " ".join(f"again and again {number}" for number in range(100))
    assert scores(apart, "repeated-spans")["repeats"] == 1
    long = " ".join([f"w{word}" for word in range(14)] * 40)
    assert scores(long, "repeated-spans")["repeats"] == 1
    assert scores(long, "repeated-spans", max_span=14)["repeats"] == 40


def test_lengths_are_of_characters_words_and_lines() -> None:
    text = "one two\r\nthree\n\n"
    values = {"characters": 16, "words": 3, "lines": 3, "mean_line": 4, "longest_line": 7, "longest_word": 5}
    assert scores(text, "lengths") == values
    for field, reason in (
        ("min_characters", "too short"),
        ("max_characters", "too long"),
        ("min_words", "too few words"),
        ("max_words", "too many words"),
        ("max_lines", "too many lines"),
        ("max_mean_line", "lines too long"),
        ("max_longest_line", "a line too long"),
        ("max_longest_word", "a word too long"),
    ):
        edge = values[field.split("_", 1)[1]]
        assert dropped(text, "lengths", **{field: edge}) == []
        beyond = edge + 1 if field.startswith("min") else edge - 1
        assert dropped(text, "lengths", **{field: beyond}) == [reason]


def test_symbols_are_shares_of_kinds_of_characters() -> None:
    text = "Ab 12 _! \ufffdé\u0301"
    assert scores(text, "symbols") == pytest.approx(
        {"symbols": 3 / 9, "digits": 2 / 9, "capitals": 1 / 3, "broken": 1 / len(text)}
    )
    assert dropped(text, "symbols", max_symbols=0.3, max_digits=0.2, max_capitals=0.3) == [
        *("too many symbols", "too many digits", "too many capitals", "broken encoding"),
    ]


@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_text_whose_utf8_was_misread_is_broken(wrong: str) -> None:
    clean = "Les élèves étaient déjà là, près de l\u2019école « Jeanne d\u2019Arc » où l\u2019été a commencé. " * 3
    misread = clean.encode().decode(wrong, "replace")
    assert scores(clean, "symbols")["broken"] == 0
    assert dropped(misread, "symbols") == ["broken encoding"]


def test_rules_and_scorers_are_known_by_the_same_kinds() -> None:
    assert set(FILTERS) == set(RULES) >= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_leave_the_scores_key_as_it_is(kind: str) -> None:
    """A changed threshold never scores again: what scores depend on is in `scoring`, and thresholds are not."""
    usual = section(kind)
    for field in type(usual).model_fields:
        value = getattr(usual, field)
        if field.startswith(("min_", "max_")) and field not in type(usual).measures and not isinstance(value, dict):
            changed = section(kind, **{field: 7})
            assert changed.scoring() == usual.scoring()
            assert changed != usual


def test_scores_do_not_depend_on_how_documents_are_batched() -> None:
    documents = [Document(CLEAN[:length], str(length), "s") for length in range(0, len(CLEAN), 50)]
    for kind in KINDS:
        whole = FILTERS[kind](section(kind)).score(documents)
        alone = FILTERS[kind](section(kind))
        for index, document in enumerate(documents):
            single = alone.score([document])
            assert all(np.array_equal(single[name], whole[name][index : index + 1]) for name in whole)
