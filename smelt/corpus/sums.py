"""Sums and differences of 0 to 99, worked digit by digit so that every step is a look-up of single digits.

Ones come first with an explicit carry or borrow, then tens, then the answer: the order in which a small decoder that
reads digits one by one can write each digit from a few close ones. Work has no spaces around its signs, which such a
decoder learns several times faster. A keyed hash holds some pairs of numbers out.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

HELD_OUT_SHARE = 0.1
Pair = tuple[int, int]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, its worked solution (`work`, which ends in the answer) and the bare `answer`.

    `pairs` are the operands of every two-operand sum or difference that the work states.
    """

    kind: str
    question: str
    work: str
    answer: str
    pairs: tuple[Pair, ...]


class Draw:
    """A stream of choices that is a function of `key`, the same under every version of Python."""

    def __init__(self, key: str) -> None:
        self._random = random.Random(_hash(key)).random

    def below(self, end: int) -> int:
        """A whole number in 0..end-1."""
        return int(self._random() * end)

    def between(self, first: int, last: int) -> int:
        """A whole number in first..last."""
        return first + self.below(last - first + 1)

    def choice(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]


@cache
def held_out(a: int, b: int) -> bool:
    """Whether the unordered pair is kept from all training text: a tenth of those with a number of two digits."""
    low, high = sorted((a, b))
    return high >= 10 and _hash(f"held-out {low} {high}") < HELD_OUT_SHARE * 2**64


def addition(a: int, b: int, ask: str = "What is {a} + {b}?") -> Problem:
    """a + b with its work; `ask` phrases the question."""
    lines, pairs = add(a, b)
    return Problem("addition", ask.format(a=a, b=b), _answered(lines, a + b), str(a + b), pairs)


def subtraction(a: int, b: int, ask: str = "What is {a} - {b}?") -> Problem:
    """a - b with its work; where a < b the work is b - a, negated."""
    lines, pairs = subtract(a, b)
    return Problem("subtraction", ask.format(a=a, b=b), _answered(lines, a - b), str(a - b), pairs)


def add(a: int, b: int) -> tuple[list[str], tuple[Pair, ...]]:
    """Lines of work for a + b, without the answer, and the pairs they state.

    >>> add(47, 38)[0]
    ['47+38:', '7+8=15, carry 1.', '4+3+1=8.']
    """
    if max(a, b) < 10:
        return [f"{a}+{b}={a + b}."], ((a, b),)
    ones = a % 10 + b % 10
    carry, tens = ones // 10, a // 10 + b // 10 + ones // 10
    return [
        f"{a}+{b}:",
        f"{a % 10}+{b % 10}={ones}, carry {carry}.",
        f"{a // 10}+{b // 10}+{carry}={tens}.",
    ], ((a, b), (a % 10, b % 10))


def subtract(a: int, b: int) -> tuple[list[str], tuple[Pair, ...]]:
    """Lines of work for a - b, without the answer, and the pairs they state.

    >>> subtract(38, 52)[0]
    ['38-52=-(52-38):', '2-8+10=4, borrow 1.', '5-3-1=1.']
    """
    high, low = max(a, b), min(a, b)
    start = f"{a}-{b}" if a >= b else f"{a}-{b}=-({b}-{a})"
    pairs = ((a, b),) if a >= b else ((a, b), (b, a))
    if high < 10:
        turned = [] if a >= b else [f"{start}:"]
        return [*turned, f"{high}-{low}={high - low}."], pairs
    borrow = int(high % 10 < low % 10)
    ones, tens = high % 10 - low % 10 + 10 * borrow, high // 10 - low // 10 - borrow
    first = f"{high % 10}-{low % 10}{'+10' if borrow else ''}"
    return [
        f"{start}:",
        f"{first}={ones}, borrow {borrow}.",
        f"{high // 10}-{low // 10}-{borrow}={tens}.",
    ], (*pairs, (high % 10, low % 10))


def _answered(lines: list[str], answer: int) -> str:
    return "\n".join((*lines, f"The answer is {answer}."))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, person=b"smelt sums").digest(), "big")
