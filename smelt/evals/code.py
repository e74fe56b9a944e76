"""Which of four pieces of code continues a function of the standard library, from files kept for validation."""

import ast
import itertools
import warnings
from collections.abc import Iterable, Iterator
from functools import cache

from smelt.corpus.python import read_source
from smelt.corpus.splits import text_share
from smelt.evals.task import Item, shuffled
from smelt.recipe.sections.corpus import Corpus

_CHOICES = 4
_LINES = 3  # of a continuation
_MOST_LINES = 12  # of a head
_MOST_CHARACTERS = 240  # of a continuation


def code_items(n: int, seed: int) -> list[Item]:
    """Up to n functions from the files of `python-source` that a corpus with the default validation share holds out."""
    return continuations(n, seed, _held_out_files())


def continuations(n: int, seed: int, texts: Iterable[str]) -> list[Item]:
    """Items from Python sources; the wrong continuations come from the other functions in them."""
    parts = shuffled(dict.fromkeys(part for text in texts for part in _functions(text)), f"code {seed}")
    endings = [ending for _, ending in parts]
    items = []
    for index, (head, ending) in enumerate(parts[:n]):
        others = dict.fromkeys(each for each in endings[index + 1 :] + endings[:index] if each != ending)
        wrong = tuple(itertools.islice(others, _CHOICES - 1))
        if len(wrong) == _CHOICES - 1:
            message = f"Continue this Python code:\n\n{head}"
            items.append(Item(head, message, ending, (ending, *wrong), joint=""))
    return items


@cache
def _held_out_files() -> tuple[str, ...]:
    share = Corpus.model_fields["validation_fraction"].default
    return tuple(each.text for each in read_source("code") if text_share(each.text) < share)


def _functions(text: str) -> Iterator[tuple[str, str]]:
    """Head and continuation of every function long enough for both, in the order of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            body = lines[node.lineno - 1 : node.end_lineno]
            cut = min(_MOST_LINES, len(body) - _LINES)
            ending = "".join(body[cut : cut + _LINES]) if cut >= _LINES else ""
            if ending.strip() and len(ending) <= _MOST_CHARACTERS:
                yield "".join(body[:cut]), ending
