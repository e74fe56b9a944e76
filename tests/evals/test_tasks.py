"""Tasks draw fixed, distinct, held-out items with checked answers."""

import re

import pytest

from smelt.corpus.arithmetic import held_out, problem
from smelt.errors import InputError
from smelt.evals.code import continuations
from smelt.evals.puzzles import puzzle, puzzle_items
from smelt.evals.sums import slips
from smelt.evals.tasks import TASKS, find_tasks


@pytest.mark.parametrize("name", TASKS)
def test_items_are_distinct_and_the_same_every_time(name: str) -> None:
    task = TASKS[name]
    first, again = task.items(40, 3), task.items(40, 3)
    assert first == again
    assert len({item.prompt for item in first}) == len(first) == 40
    assert all(item.answer for item in first)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.formulation == "cloze"])
def test_a_cloze_item_has_four_different_choices_one_of_them_right(name: str) -> None:
    task = TASKS[name]
    for item in task.items(40, 0):
        assert len(set(item.choices)) == 4
        assert item.answer in item.choices
        assert [task.right(choice, item) for choice in item.choices].count(True) == 1


@pytest.mark.parametrize("name", ["addition", "subtraction"])
def test_sums_turn_on_held_out_pairs_each_once_in_both_orders(name: str) -> None:
    pairs = [tuple(map(int, re.findall(r"\d+", item.message))) for item in TASKS[name].items(200, 0)]
    assert all(held_out(*pair) for pair in pairs)
    assert len({tuple(sorted(pair)) for pair in pairs}) == 200
    assert any(a < b for a, b in pairs)
    assert any(a > b for a, b in pairs)


def test_when_more_sums_are_asked_for_than_there_are_each_comes_in_each_order_once() -> None:
    everything = TASKS["addition"].items(10_000, 0)
    pairs = [tuple(map(int, re.findall(r"\d+", item.message))) for item in everything]
    assert len(set(pairs)) == len(pairs) > 500


def test_answers_of_sums_are_right() -> None:
    for item in TASKS["addition"].items(50, 1):
        a, b = map(int, re.findall(r"\d+", item.message))
        assert int(item.answer) == a + b


def test_a_slip_changes_one_number_and_with_flip_one_sign() -> None:
    work = problem(0, 0, "held-out", ("words",)).work
    flipped, *others = slips(work, "key", flip=True)
    assert len({work, flipped, *others}) == 4
    assert sum(a != b for a, b in zip(work, flipped, strict=True)) == 1
    assert {a for a, b in zip(work, flipped, strict=True) if a != b} <= {"+", "-"}


@pytest.mark.parametrize("family", ["strings", "lists"])
def test_no_puzzle_is_asked_both_in_training_and_in_evaluation(family: str) -> None:
    trained = {puzzle(seed, index, "train", family)[0] for seed in range(2) for index in range(3000)}
    asked = {item.message for item in puzzle_items(family)(200, 0)}
    assert len(asked) == 200
    assert not trained & asked


def test_puzzles_are_answered_right() -> None:
    answers = {
        question: answer
        for index in range(4000)
        for family in ("strings", "lists")
        for question, answer in [puzzle(0, index, "train", family)]
    }
    for question, answer in answers.items():
        numbers = [int(found) for found in re.findall(r"\d+", question)]
        if question.startswith("Sort"):
            assert answer == ", ".join(map(str, sorted(numbers)))
        elif question.startswith("Reverse the word"):
            assert answer[::-1] in question
        elif "second item" in question:
            assert answer == str(numbers[1])


def test_a_code_item_continues_one_function_and_offers_endings_of_others() -> None:
    body = "    one = 1\n    two = 2\n    three = 3\n    four = 4\n"
    sources = [f"def f{number}():\n{body}    return {number}\n" for number in range(6)]
    for item in continuations(10, 0, sources):
        number = re.search(r"def f(\d)", item.prompt)
        assert number is not None
        assert item.answer.endswith(f"return {number[1]}\n")
        assert item.prompt + item.answer in sources


def test_code_that_does_not_parse_is_left_out() -> None:
    assert continuations(10, 0, ["def broken(:\n"]) == []


def test_an_unknown_task_is_named_with_its_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown task 'adition'; did you mean 'addition'\?"):
        find_tasks(["adition"])
