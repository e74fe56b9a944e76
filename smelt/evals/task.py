"""What a task is: items with one definition for the base and the chat format, and how an output is judged."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

Formulation = Literal["cloze", "generation"]
Render = Callable[[str], str]
Thing = TypeVar("Thing")

NEXT_ITEM = "\nQuestion"  # where a base model that goes on with the next question is cut


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `prompt` is its base format, `message` what a user asks; a base answer follows after `joint`.

    `choices` are the texts that a cloze task compares, `answer` among them; generation tasks have none.
    """

    prompt: str
    message: str
    answer: str
    choices: tuple[str, ...] = ()
    joint: str = " "


@dataclass(frozen=True, slots=True)
class Task:
    """`items(n, seed)` gives up to n different items, always the same ones; `extract` finds the answer in an output."""

    name: str
    formulation: Formulation
    chance: float
    items: Callable[[int, int], list[Item]]
    extract: Callable[[str], str] = str.strip
    max_tokens: int = 0

    @property
    def metric(self) -> str:
        """Cloze tasks count right choices, generation tasks answers that match exactly."""
        return "accuracy" if self.formulation == "cloze" else "exact_match"

    def right(self, output: str, item: Item) -> bool:
        """Whether an output (of a cloze task: the text it chose) gives the item's answer."""
        return self.extract(output) == self.extract(item.answer)


def ask(question: str, answer: str, choices: tuple[str, ...] = ()) -> Item:
    """An item in the question-and-answer format of the arithmetic corpus."""
    return Item(f"Question: {question}\nAnswer:", question, answer, choices)


def shuffled(things: Iterable[Thing], key: str) -> list[Thing]:
    """The things in an order that `key` alone decides, the same under every version of Python."""
    return [thing for _, thing in sorted(enumerate(things), key=lambda pair: share(f"{key} {pair[0]}"))]


def share(key: str) -> float:
    """A number in [0, 1) that a text decides."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"smelt evals").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
