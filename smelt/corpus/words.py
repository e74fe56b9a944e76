"""Word problems of one to three steps, each step a sum or difference worked as in `smelt.corpus.sums`."""

from smelt.corpus.sums import Draw, Pair, Problem, add, subtract

# fmt: off
_NAMES = (
    "Ada", "Amir", "Anna", "Ben", "Carla", "Chen", "Dan", "Elena", "Emma", "Farid", "Grace", "Hana", "Ivan",
    "Jack", "Kofi", "Lena", "Lucas", "Maria", "Mei", "Nina", "Noah", "Omar", "Paula", "Priya", "Ravi", "Rosa",
    "Sam", "Sara", "Tom", "Yuki",
)
_THINGS = (
    "apples", "beads", "books", "buttons", "cards", "coins", "cookies", "cups", "eggs", "flowers", "keys",
    "marbles", "nuts", "oranges", "pencils", "photos", "plums", "ribbons", "seeds", "shells", "stamps",
    "stickers", "stones", "tickets",
)
# fmt: on
_OPENINGS = (
    "{name} has {n} {things}.",
    "{name} starts with {n} {things}.",
    "{name} keeps {n} {things} in a box.",
    "At first {name} has {n} {things}.",
)
_GAINS = (
    "{other} gives {name} {n} more.",
    "{name} buys {n} more.",
    "{name} finds {n} more.",
    "Then {name} gets {n} more from {other}.",
    "{name} wins {n} {things}.",
)
_LOSSES = (
    "{name} gives {n} of them to {other}.",
    "{name} loses {n} {things}.",
    "{name} sells {n} of them.",
    "Then {other} takes {n} {things} away.",
    "{name} uses up {n} of them.",
)
_CLOSINGS = (
    "How many {things} does {name} have now?",
    "How many {things} does {name} have in the end?",
    "How many {things} are there now?",
)
_TOGETHER = (
    "{name} has {a} {things} and {other} has {b}. How many {things} do they have together?",
    "One box holds {a} {things} and another holds {b}. How many {things} are there in both boxes?",
    "{name} counts {a} {things} on Monday and {b} on Tuesday. How many {things} does {name} count in all?",
    "There are {a} red {things} and {b} blue {things}. How many {things} are there in total?",
)
_APART = (
    "{name} has {a} {things} and {other} has {b}. How many more {things} does {name} have than {other}?",
    "One box holds {a} {things} and another holds {b}. How many more {things} are in the first box?",
    "{name} needs {a} {things} and has {b}. How many {things} are missing?",
    "Of {a} {things}, {b} are red and the rest are blue. How many {things} are blue?",
)
_LARGEST = 99


def word_problem(draw: Draw) -> Problem:
    """A story about things that come and go, or a comparison of two amounts; all amounts are in 2..99."""
    name, other, things = draw.choice(_NAMES), draw.choice(_NAMES), draw.choice(_THINGS)
    while other == name:
        other = draw.choice(_NAMES)
    fill = {"name": name, "other": other, "things": things}
    return _story(draw, fill) if draw.below(3) else _comparison(draw, fill)


def _comparison(draw: Draw, fill: dict[str, str]) -> Problem:
    a, b = draw.between(2, _LARGEST), draw.between(2, _LARGEST)
    if draw.below(2):
        return _problem(draw.choice(_TOGETHER).format(a=a, b=b, **fill), a, [b])
    a, b = max(a, b), min(a, b)
    return _problem(draw.choice(_APART).format(a=a, b=b, **fill), a, [-b])


def _story(draw: Draw, fill: dict[str, str]) -> Problem:
    total = start = draw.between(2, _LARGEST)
    sentences = [draw.choice(_OPENINGS).format(n=start, **fill)]
    changes: list[int] = []
    for _ in range(draw.between(1, 3)):
        gain = total < 4 or (total <= _LARGEST - 2 and draw.below(2) == 0)
        change = draw.between(2, _LARGEST - total) if gain else -draw.between(2, total - 2)
        total += change
        changes.append(change)
        sentences.append(draw.choice(_GAINS if gain else _LOSSES).format(n=abs(change), **fill))
    sentences.append(draw.choice(_CLOSINGS).format(**fill))
    return _problem(" ".join(sentences), start, changes)


def _problem(question: str, start: int, changes: list[int]) -> Problem:
    """Work through `changes`, each step but the last ending in its equation, which the next step continues from."""
    lines: list[str] = []
    pairs: list[Pair] = []
    total = start
    for step, change in enumerate(changes, 1):
        work, stated = add(total, change) if change >= 0 else subtract(total, -change)
        equation = f"{total}{'+' if change >= 0 else '-'}{abs(change)}={total + change}."
        lines += work if step == len(changes) or equation in work else [*work, equation]
        pairs += stated
        total += change
    return Problem("words", question, "\n".join((*lines, f"The answer is {total}.")), str(total), tuple(pairs))
