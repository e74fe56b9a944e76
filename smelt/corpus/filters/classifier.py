"""The filter that asks a classifier of `smelt corpus classifier` how good a document is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from smelt.corpus.classifier.model import load
from smelt.corpus.document import Document
from smelt.corpus.filters.scores import Rule, Thresholds
from smelt.recipe.sections.judges import Classifier

THRESHOLDS = Thresholds(
    (Rule("score too low", "score", "below", "min_score"), Rule("score too high", "score", "above", "max_score"))
)


class ClassifierScorer:
    """Column `score`."""

    def __init__(self, section: Classifier) -> None:
        self._model = load(Path(section.model).expanduser())

    def score(self, documents: Sequence[Document]) -> dict[str, NDArray[Any]]:
        """[documents], in the unit of the labels or as a probability."""
        return {"score": self._model([document.text for document in documents])}
