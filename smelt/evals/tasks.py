"""The table of tasks: name -> Task. A task is a line here and a function that draws its items."""

import difflib
from collections.abc import Sequence

from smelt.errors import InputError
from smelt.evals.code import code_items
from smelt.evals.extract import last_number, short_answer
from smelt.evals.puzzles import puzzle_items
from smelt.evals.sums import pair_items, sum_choices, word_choices, word_items
from smelt.evals.task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("addition", "generation", 0.0, pair_items("addition"), last_number, max_tokens=64),
        Task("subtraction", "generation", 0.0, pair_items("subtraction"), last_number, max_tokens=64),
        Task("arithmetic-words", "generation", 0.0, word_items, last_number, max_tokens=192),
        Task("sum-choice", "cloze", 0.25, sum_choices),
        Task("words-choice", "cloze", 0.25, word_choices),
        Task("code-choice", "cloze", 0.25, code_items),
        Task("strings", "generation", 0.0, puzzle_items("strings"), short_answer, max_tokens=32),
        Task("lists", "generation", 0.0, puzzle_items("lists"), short_answer, max_tokens=32),
    )
}


def find_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of these names; InputError for one that is not in the table."""
    for name in names:
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, 1)
            guess = f"did you mean '{near[0]}'? " if near else ""
            raise InputError(f"tasks: unknown task '{name}'; {guess}(known tasks: {', '.join(TASKS)})")
    return [TASKS[name] for name in names]
