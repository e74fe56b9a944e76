"""PII: addresses and numbers of people go, everything that only looks like one stays."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.edits.table import EDITS
from smelt.recipe.sections.edits import PersonalData

edit = EDITS["pii"](PersonalData(kind="pii"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+list@mail.example.co.uk, please.", "Write to <email>, please."),
        ("**me@example.org**", "**<email>**"),
        ("<mailto:me@example.org>", "<mailto:<email>>"),
        ("from 84.17.52.201 and 2001:4860:4860::8888.", "from <ip> and <ip>."),
        ("Call (415) 555-2671 or 415-555-2671.", "Call <phone> or <phone>."),
        ("Tel. +44 20 7946 0958, +49 (30) 901820, +14155552671", "Tel. <phone>, <phone>, <phone>"),
    ],
)
def test_what_is_personal_becomes_a_placeholder(text: str, expected: str) -> None:
    assert edit(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "192.168.0.1, 10.0.0.1, 127.0.0.1, 224.0.0.1, 999.10.20.30 and fe80::1 are not public",
        "section 3.1.4.2, release 2.10.3.1, 1.22.333.44.55",
        "std::map, a::b, 12:30:45, ff:ff:ff",
        "f(x) = x^3 +100(1.4427) + 3.14159265358, 3 +12345678901, 5+12345678901",
        "@dataclass, a @ b.T, x@y.transpose(), me@localhost, user@host",
        "ISBN 978-0-306-40615-7, 2026-11-21, 1234-5678-9012, 555-1234, 115-123-4567",
    ],
)
def test_what_only_looks_personal_stays(text: str) -> None:
    assert edit(text) == (text, {})


def test_changes_are_counted_by_kind() -> None:
    text = "a@example.org b@example.org 84.17.52.201 +44 20 7946 0958"
    assert edit(text) == ("<email> <email> <ip> <phone>", {"email": 2, "ip": 1, "phone": 1})


def test_only_what_the_recipe_names_is_removed() -> None:
    only = EDITS["pii"](PersonalData(kind="pii", remove=("ip",)))
    assert only("a@example.org 84.17.52.201")[0] == "a@example.org <ip>"


@given(st.text(alphabet="ab@.-+:() 12590é\n", max_size=200))
def test_an_edited_text_has_nothing_left_to_edit(text: str) -> None:
    new, changes = edit(text)
    assert (new == text) == (not changes)
    assert edit(new) == (new, {})


@pytest.mark.parametrize("run", ["a", "a.", "1.", "1", "+1 ", "20:", "a@a.", "(555) "])
def test_a_long_run_of_anything_takes_time_in_proportion_only(run: str) -> None:
    """A pattern that goes back over what it has read would take hours for these."""
    text = run * (200_000 // len(run))
    assert isinstance(edit(text)[0], str)


def test_technical_prose_keeps_its_version_numbers(shared_data: Path) -> None:
    """What is taken from textbooks and PEPs as an address or a telephone is one, or could be."""
    with gzip.open(shared_data / "pretrain" / "math_textbooks.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [edit(json.loads(line)["text"])[1] for line in file]
    assert not any(found)
