"""Arithmetic problems by number: a pure function from seed and index to a checked problem, and a corpus made of them.

Training draws never state a held-out pair of numbers, held-out draws turn on one; evals and post-training use them too.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from smelt.corpus.document import Document
from smelt.corpus.sums import HELD_OUT_SHARE, Draw, Problem, addition, held_out, subtraction
from smelt.corpus.words import word_problem
from smelt.recipe.sections.readers import Arithmetic

__all__ = ["HELD_OUT_SHARE", "VERSION", "Draw", "Problem", "addition", "held_out", "problem", "read_arithmetic"]
__all__ += ["subtraction", "word_problem"]

VERSION = 2
_MOST_IN_DOCUMENT = 6
_CORPUS_KINDS = ("addition", "subtraction", "addition", "subtraction", "words")
_ADDITION_ASKS = ("What is {a} + {b}?", "{a} + {b} = ?", "Compute {a} plus {b}.")
_SUBTRACTION_ASKS = ("What is {a} - {b}?", "{a} - {b} = ?", "Compute {a} minus {b}.")


def problem(seed: int, index: int, split: Literal["train", "held-out"], kinds: tuple[str, ...]) -> Problem:
    """Problem `index` of an endless list of `kinds` (addition, subtraction, words; a repeated kind comes more often).

    In `train` no pair that the work states is held out; in `held-out` the first one, the main operation, is.
    """
    draw = Draw(f"{seed} {index} {split} {' '.join(kinds)}")
    make = _KINDS[draw.choice(kinds)]
    while True:
        drawn = make(draw)
        fits = not any(held_out(*pair) for pair in drawn.pairs) if split == "train" else held_out(*drawn.pairs[0])
        if fits:
            return drawn


def read_arithmetic(reader: Arithmetic, source: str, seed: int) -> Iterator[Document]:
    """`reader.documents` documents of three to six training problems each."""
    for number in range(reader.documents):
        count = Draw(f"{seed} document {number}").between(3, _MOST_IN_DOCUMENT)
        first = number * _MOST_IN_DOCUMENT
        problems = [problem(seed, first + offset, "train", _CORPUS_KINDS) for offset in range(count)]
        text = "\n\n".join(f"Question: {each.question}\nAnswer: {each.work}" for each in problems)
        yield Document(text, f"arithmetic:{seed}:{number}", source)


def _addition(draw: Draw) -> Problem:
    return addition(draw.below(100), draw.below(100), draw.choice(_ADDITION_ASKS))


def _subtraction(draw: Draw) -> Problem:
    return subtraction(draw.below(100), draw.below(100), draw.choice(_SUBTRACTION_ASKS))


_KINDS: dict[str, Callable[[Draw], Problem]] = {
    "addition": _addition,
    "subtraction": _subtraction,
    "words": word_problem,
}
