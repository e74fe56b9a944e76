"""A fast path is used only once it has proved itself, and with a word it is given up."""

import warnings
from collections.abc import Callable, Sequence

import pytest

from smelt.corpus.proven import SAMPLE_DOCUMENTS, Proven

Lengths = Callable[[Sequence[str]], list[int]]


def plain(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def counted(work: Lengths) -> tuple[Lengths, list[int]]:
    """The same work, and how many texts each call of it had."""
    calls: list[int] = []

    def run(texts: Sequence[str]) -> list[int]:
        calls.append(len(texts))
        return work(texts)

    return run, calls


@pytest.mark.parametrize("batch", [1, 10, 64, 1000])
def test_the_plain_path_sees_the_sample_alone_however_texts_are_batched(batch: int) -> None:
    slow, calls = counted(plain)
    proven = Proven("lengths", slow, plain)
    texts = [f"text {number}" for number in range(1000)]
    with warnings.catch_warnings(action="error"):
        results = [proven(texts[first : first + batch]) for first in range(0, len(texts), batch)]
    assert [each for result in results for each in result] == plain(texts)
    assert sum(calls) == SAMPLE_DOCUMENTS


def test_long_texts_make_a_shorter_sample() -> None:
    slow, calls = counted(plain)
    proven = Proven("lengths", slow, plain, characters=100)
    for _ in range(10):
        proven(["x" * 40])
    assert sum(calls) == 3


def test_a_difference_is_told_once_and_the_plain_path_goes_on() -> None:
    proven = Proven("lengths", plain, lambda texts: [len(text.encode()) for text in texts])
    assert proven(["ab"]) == [2]
    with pytest.warns(UserWarning, match="lengths: the fast path differs .* the plain one goes on"):
        assert proven(["ab", "\u00e9", "abc"]) == [2, 1, 3]
    with warnings.catch_warnings(action="error"):
        assert proven(["\u00e9"]) == [1]


def test_a_fast_path_that_fails_counts_as_a_difference() -> None:
    def broken(texts: Sequence[str]) -> list[int]:
        raise RuntimeError("no such instruction")

    with pytest.warns(UserWarning, match="failed .no such instruction."):
        assert Proven("lengths", plain, broken)(["ab"]) == [2]


def test_without_a_fast_path_the_plain_one_does_it_all() -> None:
    assert Proven("lengths", plain, None)(["ab", "c"]) == [2, 1]
