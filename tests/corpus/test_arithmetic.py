"""Generated arithmetic is true, short, deterministic, and keeps held-out pairs out of training text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.corpus.arithmetic import addition, held_out, problem, subtraction, word_problem
from smelt.corpus.readers import read
from smelt.corpus.sums import Draw
from smelt.recipe.sections.readers import Arithmetic

NUMBER = st.integers(0, 99)
SIDES = r"-?\d+(?:[+-]\d+)*|-\(\d+-\d+\)"
EQUATION = re.compile(rf"({SIDES})=({SIDES})(?:, (carry|borrow) (\d))?[.:]")
PAIR = re.compile(r"(?<![\d+-])(\d+)[+-](\d+)(?![\d+-])")


def value(side: str) -> int:
    inner = re.fullmatch(r"-\((.*)\)", side)
    if inner:
        return -value(inner[1])
    return sum(int(term) for term in re.findall(r"[+-]?\d+", side))


def check(work: str, answer: str) -> None:
    *steps, last = work.split("\n")
    assert last == f"The answer is {answer}."
    for step in steps:
        if re.fullmatch(r"\d+[+-]\d+:", step):
            continue
        equation = EQUATION.fullmatch(step)
        assert equation, step
        left, right, mark, digit = equation.groups()
        assert value(left) == value(right), step
        if mark == "carry":
            assert int(digit) == value(left) // 10
        if mark == "borrow":
            assert int(digit) == ("+10" in left)
            assert 0 <= value(left) <= 9


def stated(work: str) -> set[tuple[int, int]]:
    """Operands of the two-operand sums and differences in the work, found without help from the generator."""
    return {(int(a), int(b)) for a, b in PAIR.findall(work)}


def asked(question: str) -> int:
    """The answer of a bare sum, from the words of its question."""
    a, b = map(int, re.findall(r"\d+", question))
    return a + b if re.search(r"\+|plus", question) else a - b


def told(question: str) -> int:
    """The answer of a word problem, from the words of its question."""
    numbers = [(int(match[0]), match.start()) for match in re.finditer(r"\d+", question)]
    amounts = [number for number, _ in numbers]
    if re.search(r"How many more|missing|the rest are blue", question):
        return amounts[0] - amounts[1]
    if re.search(r"together|in both|in all|in total", question):
        return sum(amounts)
    total, *changes = re.findall(r"[^.?]*\d+[^.?]*\.", question)
    result = int(re.findall(r"\d+", total)[0])
    for sentence in changes:
        amount = int(re.findall(r"\d+", sentence)[0])
        result += amount if re.search(r"more|wins", sentence) else -amount
    return result


@given(NUMBER, NUMBER)
@settings(max_examples=500)
def test_every_line_of_work_is_true_and_the_answer_is_right(a: int, b: int) -> None:
    for made, result in ((addition(a, b), a + b), (subtraction(a, b), a - b)):
        assert made.answer == str(result)
        check(made.work, made.answer)
        assert stated(made.work) <= set(made.pairs)
        assert (a, b) in made.pairs


@given(NUMBER, NUMBER)
def test_every_step_but_the_restatement_looks_up_single_digits(a: int, b: int) -> None:
    for made in (addition(a, b), subtraction(a, b)):
        for line in made.work.split("\n")[1:-1]:
            terms = re.findall(r"\d+", line.split("=")[0])
            assert all(len(term) == 1 or term == "10" for term in terms), line


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
@settings(max_examples=500)
def test_bare_sums_answer_their_question_in_every_phrasing(seed: int, index: int) -> None:
    for kind in ("addition", "subtraction"):
        made = problem(seed, index, "train", (kind,))
        assert made.kind == kind
        assert asked(made.question) == int(made.answer)
        check(made.work, made.answer)


@given(st.text(min_size=1, max_size=20))
@settings(max_examples=1000)
def test_word_problems_answer_their_question(key: str) -> None:
    made = word_problem(Draw(key))
    assert told(made.question) == int(made.answer)
    check(made.work, made.answer)
    assert stated(made.work) <= set(made.pairs)
    assert all(0 <= a <= 99 and 0 <= b <= 99 for a, b in made.pairs)


@given(NUMBER, NUMBER)
def test_holding_out_is_symmetric_and_spares_single_digits(a: int, b: int) -> None:
    assert held_out(a, b) == held_out(b, a)
    assert not (max(a, b) < 10 and held_out(a, b))


def test_about_a_tenth_of_the_pairs_is_held_out() -> None:
    pairs = [(a, b) for a in range(100) for b in range(a + 1) if a >= 10]
    assert 0.08 < sum(held_out(a, b) for a, b in pairs) / len(pairs) < 0.12


def test_training_states_no_held_out_pair_and_held_out_problems_turn_on_one() -> None:
    kinds = ("addition", "subtraction", "words")
    for index in range(3000):
        train = problem(1, index, "train", kinds)
        assert not any(held_out(*pair) for pair in stated(train.work) | set(train.pairs)), train
        numbers = [int(number) for number in re.findall(r"\d+", train.question)]
        assert train.kind == "words" or not held_out(*numbers)
    for index in range(300):
        assert held_out(*problem(1, index, "held-out", kinds).pairs[0])


def test_a_problem_is_a_function_of_seed_index_split_and_kinds() -> None:
    kinds = ("addition", "subtraction", "words")
    once = [problem(5, index, "train", kinds) for index in range(200)]
    assert once == [problem(5, index, "train", kinds) for index in range(200)]
    assert once != [problem(6, index, "train", kinds) for index in range(200)]
    assert {each.kind for each in once} == set(kinds)
    assert problem(0, 0, "train", ("addition",)).question == "66 + 36 = ?"


@pytest.mark.parametrize(("a", "b"), [(0, 0), (99, 99), (5, 12), (50, 50), (10, 1)])
def test_edges_are_worked_too(a: int, b: int) -> None:
    check(addition(a, b).work, str(a + b))
    check(subtraction(a, b).work, str(a - b))


def test_the_corpus_is_documents_of_three_to_six_problems() -> None:
    reader = Arithmetic(kind="arithmetic", documents=100)
    found = list(read(reader, "sums", 3))
    assert found == list(read(reader, "sums", 3))
    assert len(found) == len({document.text for document in found}) == 100
    for document in found:
        blocks = document.text.split("\n\n")
        assert 3 <= len(blocks) <= 6
        for block in blocks:
            question, work = re.fullmatch(r"Question: (.*?)\nAnswer: (.*)", block, re.DOTALL).groups()
            check(work, work.rsplit(" ", 1)[1].removesuffix("."))
            assert not any(held_out(*pair) for pair in stated(work)), question
