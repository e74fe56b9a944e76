"""Generated questions with checked answers, from the training draws of the arithmetic corpus and the puzzles."""

from smelt.corpus.arithmetic import Draw, problem
from smelt.evals.puzzles import Family, puzzle

Row = dict[str, list[dict[str, str]]]

_SUMS = 65  # percent of all rows
_STORIES = 20
_FAMILIES: tuple[Family, Family] = ("strings", "lists")


def instructions(seed: int, examples: int) -> list[Row]:
    """`examples` rows {"messages": [user, assistant]}, row i a function of (seed, i).

    65 % ask for a sum or a difference, 20 % are word problems, both answered with the work and then the answer;
    15 % are about words and lists. None asks what a task of `smelt.evals` asks.
    """
    return [_row(seed, index) for index in range(examples)]


def _row(seed: int, index: int) -> Row:
    draw = Draw(f"instruction {seed} {index}")
    share = draw.below(100)
    if share < _SUMS + _STORIES:
        kinds = ("addition", "subtraction") if share < _SUMS else ("words",)
        each = problem(seed, index, "train", kinds)
        question, answer = each.question, each.work
    else:
        question, answer = puzzle(seed, index, "train", draw.choice(_FAMILIES))
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
