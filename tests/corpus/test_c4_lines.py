"""The edit `c4-lines`: which lines go, which stay as they are, and what is counted."""

from typing import Any

import pytest

from smelt.corpus.edits.table import EDITS
from smelt.recipe.sections.edits import C4Lines


def edited(text: str, **options: Any) -> tuple[str, dict[str, int]]:
    new, changes = EDITS["c4-lines"](C4Lines(kind="c4-lines", **options))(text)
    return new, dict(changes)


def test_lines_that_end_as_sentences_stay() -> None:
    text = "One of them.\nTwo are here!\nThree are here?\nShe said \"four.\"\nIt is 'five'\n"
    assert edited(text) == (text.strip(), {})


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("Home | News | About us", "lines without closing punctuation"),
        ("To be continued another day...", "lines without closing punctuation"),
        ("Read more.", "short lines"),
        (f"See {'x' * 1001} for more.", "lines with a long word"),
        ("Please enable JavaScript to go on.", "lines about JavaScript"),
        ("This page uses COOKIES to serve you.", "lines about cookies or terms of use"),
        ("You agree to our Terms of Use.", "lines about cookies or terms of use"),
    ],
)
def test_other_lines_go_and_are_counted(line: str, change: str) -> None:
    assert edited(f"First we say this.\r\n  {line}\n\nThen we say that.") == (
        "First we say this.\nThen we say that.",
        {change: 1},
    )


def test_each_rule_can_be_switched_off() -> None:
    for line, option in (
        ("Home | News | About us", {"punctuation": False}),
        ("Read more.", {"min_words": 2}),
        (f"See {'x' * 1001} for more.", {"max_word_length": None}),
        ("Please enable JavaScript to go on.", {"javascript": False}),
        ("You agree to our Terms of Use.", {"policy": False}),
        ("It was so.[1] She said so.[edit]", {"citations": False, "punctuation": False}),
    ):
        assert edited(line, **option) == (line, {})


def test_marks_of_citations_are_cut_out_before_the_end_of_a_line_is_looked_at() -> None:
    assert edited("It was so.[12]\nIt is[3] not[] known.[citation needed]\n[edit]") == (
        "It was so.\nIt is not known.",
        {"citations": 4, "lines without closing punctuation": 1},
    )


def test_a_line_that_condemns_its_page_stays_for_the_filter_to_see() -> None:
    text = "Lorem ipsum and JavaScript meet.\nOur use of cookies { is } wide."
    assert edited(text) == (text, {})


def test_a_text_of_nothing_else_becomes_empty() -> None:
    assert edited("Menu\nHome\n\nAbout\n") == ("", {"lines without closing punctuation": 3})
    assert edited("") == ("", {})
