"""Arithmetic tasks on numbers that no training text states: sums, differences, word problems, and slips to spot."""

import re
from collections.abc import Callable

from smelt.corpus.arithmetic import Draw, Problem, held_out, problem
from smelt.evals.task import Item, ask

_RESULT = re.compile(r"(?<==)-?\d+|(?<=is )-?\d+")
_SIGN = re.compile(r"(?<=\d)([+-])(?=\d)")
_CHOICES = 4
_SHIFTS = (-10, -2, -1, 1, 2, 10)


def pair_items(kind: str) -> Callable[[int, int], list[Item]]:
    """Items of `addition` or `subtraction`; each unordered held-out pair once, then again in its other order."""

    def items(n: int, seed: int) -> list[Item]:
        return [ask(each.question, each.answer) for each in _pairs(kind, n, seed)]

    return items


def word_items(n: int, seed: int) -> list[Item]:
    """Word problems whose first step is a held-out pair."""
    return [ask(each.question, each.answer) for each in _stories(n, seed)]


def sum_choices(n: int, seed: int) -> list[Item]:
    """Worked sums and differences, one of four without a slip."""
    kinds = ("addition", "subtraction")
    halves = [_pairs(kind, -(-n // 2), seed) for kind in kinds]
    mixed = [each for both in zip(*halves, strict=False) for each in both][:n]
    return [_choice(each, f"{seed} {index}", flip=False) for index, each in enumerate(mixed)]


def word_choices(n: int, seed: int) -> list[Item]:
    """Worked word problems, one of four without a slip; one slip takes the wrong operation."""
    return [_choice(each, f"{seed} {index}", flip=True) for index, each in enumerate(_stories(n, seed))]


def slips(work: str, key: str, flip: bool) -> tuple[str, ...]:
    """Three different wrong versions of a worked solution, in each one a number or, with `flip`, the first sign."""
    draw = Draw(f"slips {key}")
    wrong = [_flipped(work)] if flip else []
    places = list(_RESULT.finditer(work))
    while len(wrong) < _CHOICES - 1:
        place = draw.choice(places)
        right, number = int(place[0]), int(place[0]) + draw.choice(_SHIFTS)
        changed = f"{work[: place.start()]}{number}{work[place.end() :]}"
        if (number < 0) == (right < 0) and changed not in wrong:
            wrong.append(changed)
    return tuple(wrong)


def _choice(each: Problem, key: str, flip: bool) -> Item:
    return ask(each.question, each.work, (each.work, *slips(each.work, key, flip)))


def _flipped(work: str) -> str:
    return _SIGN.sub(lambda found: "-" if found[1] == "+" else "+", work, count=1)


def _pairs(kind: str, n: int, seed: int) -> list[Problem]:
    unordered = {(a, b) for b in range(100) for a in range(b + 1) if held_out(a, b)}
    ordered = unordered | {(b, a) for a, b in unordered}
    found: dict[tuple[int, int], Problem] = {}
    met: set[tuple[int, ...]] = set()
    index = 0
    while len(found) < min(n, len(ordered)):
        each = problem(seed, index, "held-out", (kind,))
        pair = each.pairs[0]
        index += 1
        if pair in found or (tuple(sorted(pair)) in met and len(met) < len(unordered)):
            continue
        found[pair] = each
        met.add(tuple(sorted(pair)))
    return list(found.values())


def _stories(n: int, seed: int) -> list[Problem]:
    found: dict[str, Problem] = {}
    index = 0
    while len(found) < n:
        each = problem(seed, index, "held-out", ("words",))
        found.setdefault(each.question, each)
        index += 1
    return list(found.values())
