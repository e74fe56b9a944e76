"""Generated instructions are checked, reproducible, and never what an evaluation asks."""

import re

from smelt.corpus.arithmetic import held_out
from smelt.evals.extract import last_number
from smelt.evals.tasks import TASKS
from smelt.posttrain.instructions import instructions

ROWS = instructions(0, 3000)


def pairs() -> list[tuple[str, str]]:
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in ROWS]


def test_rows_are_a_function_of_seed_and_index() -> None:
    assert instructions(0, 50) == ROWS[:50]
    assert instructions(1, 50) != ROWS[:50]


def test_two_thirds_are_sums_a_fifth_are_stories() -> None:
    sums = sum(bool(re.search(r"\d+ (plus|minus|\+|-|and|take away|from) \d+", question)) for question, _ in pairs())
    worked = sum("The answer is" in answer for _, answer in pairs())
    assert 0.6 < sums / len(ROWS) < 0.7
    assert 0.82 < worked / len(ROWS) < 0.88


def test_no_row_asks_what_an_evaluation_asks() -> None:
    asked = {item.message for task in TASKS.values() for item in task.items(200, 0)}
    assert not asked & {question for question, _ in pairs()}


def test_no_held_out_pair_is_worked_anywhere() -> None:
    for _, answer in pairs():
        for a, b in re.findall(r"(?m)^(\d+) [+-] (\d+)(?=:| =)", answer):
            assert not held_out(int(a), int(b))


def test_sums_are_right() -> None:
    for question, answer in pairs():
        if found := re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?", question):
            a, b = int(found[1]), int(found[3])
            assert int(last_number(answer)) == (a + b if found[2] == "+" else a - b)
