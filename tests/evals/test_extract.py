"""Answers are found in outputs and put into one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.evals.extract import last_number, short_answer


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("4 + 3 + 1 = 8.\nThe answer is 85.", "85"),
        ("The answer is -35.", "-35"),
        ("It is \u221235", "-35"),
        ("47-12", "12"),
        ("52 - 8", "8"),
        ("about 1,000 of them", "1000"),
        ("1,000,000", "1000000"),
        ("1, 5, 9", "9"),
        ("12,5", "5"),
        ("3.50 left", "3.5"),
        ("007", "7"),
        ("-0", "0"),
        ("100.", "100"),
        ("none", ""),
    ],
)
def test_the_last_number_counts(output: str, number: str) -> None:
    assert last_number(output) == number


@given(st.integers(-(10**12), 10**12), st.booleans())
def test_every_integer_is_read_back(number: int, grouped: bool) -> None:
    assert last_number(f"so it is {number:,}." if grouped else f"so it is {number}.") == str(number)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("enots", "enots"),
        ("\n enots.\nQuestion", "enots"),
        ("Let me see.\nAnswer: enots", "enots"),
        ('"1,  5, 9".', "1, 5, 9"),
        ("[1, 5, 9]", "1, 5, 9"),
        ("", ""),
    ],
)
def test_a_short_answer_is_the_line_after_answer_or_the_first_line(output: str, answer: str) -> None:
    assert short_answer(output) == answer
