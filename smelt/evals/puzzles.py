"""Questions on words and short lists with checked answers, for evaluation and, from other draws, for training.

A question is held out by a hash of its whole content, so that no training draw asks it, while a tuned model has met
the word, or the kind of question, elsewhere.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from smelt.corpus.arithmetic import Draw
from smelt.evals.task import Item, ask, share

Family = Literal["strings", "lists"]
Split = Literal["train", "held-out"]
HELD_OUT_SHARE = 0.15

_WORD_LIST = """
air ant apple arm art bag ball band bank barn bath beach bean bear bed bee bell bench bike bird boat body bone
book boot bowl box boy bread brick bridge brush bus cake camp candle cap car card cart cat chair chalk cheese
chest child city clay clock cloth cloud coal coat coin cook cork corn cow crab cream crow cup deer desk dish dog
door dove dress drum duck dust ear earth egg eye face farm feather field fig fire fish flag flame flower fly
foot forest fork fox frog fruit garden gate girl glass glove goat gold goose grain grape grass hair hall hammer
hand hat hay heart hen hill honey hook horn horse house ice ink iron island jam jar key king kite knee knife
lake lamb lamp leaf leg lemon letter light lily lion lip log map mask meal milk mill moon moss moth mouse mouth
nail neck nest net night nose nut oak oat oil onion orange oven owl page pan paper park path pea peach pear pen
pie pig pin pipe plant plate plum pond pot queen rain ring river road rock roof room root rope rose sail salt
sand school sea seed sheep shell ship shirt shoe silk silver skin sky smoke snail snow soap sock song soup spoon
star steam step stick stone storm street sugar summer sun swan table tail tea tent thread tiger tooth town toy
train tree truck valley vase voice wall watch water wave wheat wheel wind window wine wing winter wolf wood wool
"""
_WORDS = _WORD_LIST.split()
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def _spoken(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


_STRINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Reverse the word {word}.", lambda word: word[::-1]),
    ("What is the first letter of the word {word}?", lambda word: word[0]),
    ("What is the last letter of the word {word}?", lambda word: word[-1]),
    ("Write the word {word} in capitals.", str.upper),
    ("Spell the word {word} letter by letter.", lambda word: " ".join(word)),
    ("How many letters does the word {word} have?", lambda word: str(len(word))),
)
_LISTS: tuple[tuple[str, Callable[[list[int]], str]], ...] = (
    ("Sort the numbers {spoken}.", lambda numbers: _spoken(sorted(numbers))),
    ("What is the largest of {spoken}?", lambda numbers: str(max(numbers))),
    ("What is the smallest of {spoken}?", lambda numbers: str(min(numbers))),
    ("How many items are in [{spoken}]?", lambda numbers: str(len(numbers))),
    ("What is the last item of [{spoken}]?", lambda numbers: str(numbers[-1])),
    ("Reverse the list [{spoken}].", lambda numbers: _spoken(numbers[::-1])),
)


def puzzle(seed: int, index: int, split: Split, family: Family) -> tuple[str, str]:
    """Question and answer `index` of an endless list: a pure function of its arguments."""
    draw = Draw(f"{family} {split} {seed} {index}")
    while True:
        question, answer = _string(draw) if family == "strings" else _list(draw)
        if (share(question) < HELD_OUT_SHARE) == (split == "held-out"):
            return question, answer


def puzzle_items(family: Family) -> Callable[[int, int], list[Item]]:
    """Held-out items; of `strings` there are about 200 different ones."""

    def items(n: int, seed: int) -> list[Item]:
        n = min(n, sum(share(question) < HELD_OUT_SHARE for question in _all_strings())) if family == "strings" else n
        found: dict[str, str] = {}
        index = 0
        while len(found) < n:
            found.update([puzzle(seed, index, "held-out", family)])
            index += 1
        return [ask(question, answer) for question, answer in found.items()]

    return items


def _all_strings() -> Iterator[str]:
    return (question.format(word=word) for word in _WORDS for question, _ in _STRINGS)


def _string(draw: Draw) -> tuple[str, str]:
    word = draw.choice(_WORDS)
    question, answer = draw.choice(_STRINGS)
    return question.format(word=word), answer(word)


def _list(draw: Draw) -> tuple[str, str]:
    numbers: list[int] = []
    while len(numbers) < draw.between(3, len(_ORDINALS)):
        number = draw.below(100)
        numbers += [number] if number not in numbers else []
    which = draw.below(len(_LISTS) + 1)
    if which == len(_LISTS):
        place = draw.below(len(numbers))
        return f"What is the {_ORDINALS[place]} item of [{_spoken(numbers)}]?", str(numbers[place])
    question, answer = _LISTS[which]
    return question.format(spoken=_spoken(numbers)), answer(numbers)
