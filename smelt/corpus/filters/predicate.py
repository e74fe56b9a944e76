"""A filter of the user's own: a Python function that is given a document and says whether it stays."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.document import Document
from smelt.corpus.filters.scores import Drops, Scores
from smelt.errors import InputError
from smelt.recipe.parts.custom import imported, source_hash
from smelt.recipe.sections.judges import Predicate


class PredicateScorer:
    """Column `score`: what the function returns, True as 1 and False as 0."""

    def __init__(self, section: Predicate) -> None:
        module_name, _, name = section.function.partition(":")
        try:
            module = imported(section.function, module_name, "function")
        except ValueError as error:
            raise InputError(str(error)) from None
        if source_hash(module) != section.source:
            raise InputError(
                f"function '{section.function}': {module.__file__} has changed since this recipe was frozen; restore "
                "it, or drop 'source' from the recipe to use it as it is now"
            )
        self._name, self._function = section.function, getattr(module, name)

    def score(self, documents: Sequence[Document]) -> dict[str, NDArray[Any]]:
        """[documents]; InputError, with the document's id, where the function fails or returns anything else."""
        return {"score": np.array([self._one(document) for document in documents], dtype=np.float64)}

    def _one(self, document: Document) -> float:
        try:
            value = float(self._function(document))
        except Exception as error:  # whatever the user's function raises
            raise InputError(
                f"function '{self._name}': failed on document '{document.id}' of source '{document.source}' "
                f"({type(error).__name__}: {error}){_place(error)}; mend it"
            ) from error
        if math.isnan(value):
            raise InputError(f"function '{self._name}': returned nan for document '{document.id}'; return a number")
        return value


def reasons(section: Predicate, scores: Scores) -> Drops:
    """What is said of the documents that go."""
    return {f"not {section.function.partition(':')[2]}": scores["score"] < section.min_score}


def _place(error: Exception) -> str:
    """The line of the user's file at which it failed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename == __file__:
        return ""
    return f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
