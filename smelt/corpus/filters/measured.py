"""A scorer made of a plain function of one text and a compiled one of many: the plain one is the definition."""

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.document import Document
from smelt.corpus.filters.characters import Batch, encode
from smelt.corpus.proven import Proven

Matrix = NDArray[np.float64]
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 250_000  # stays in a processor's cache, bounds memory, and is not much to prove the compiled one on


class Measured:
    """`plain` gives the values of `columns` for a text; `load` imports what computes them for a batch of texts
    ([texts, columns]), and raises ImportError where its library is missing."""

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        plain: Callable[[str], Sequence[float]],
        load: Callable[[], Callable[[Batch], Matrix]],
    ) -> None:
        self._columns, self._plain = tuple(columns), plain
        self.compiled = _of_texts(load)
        self._measure: Proven[Matrix] = Proven(name, self.plain, self.compiled, np.array_equal)

    def plain(self, texts: Sequence[str]) -> Matrix:
        """[texts, columns]; `compiled` gives the same, and is None where its library is missing."""
        return np.array([self._plain(text) for text in texts], np.float64).reshape(len(texts), len(self._columns))

    def score(self, documents: Sequence[Document]) -> dict[str, Matrix]:
        """Column -> [documents], in float64."""
        texts = [each.text for each in documents]
        empty = np.empty((0, len(self._columns)))
        scores = np.concatenate([empty, *map(self._measure, _batches(texts))])
        return {name: scores[:, column] for column, name in enumerate(self._columns)}


def _of_texts(load: Callable[[], Callable[[Batch], Matrix]]) -> Callable[[Sequence[str]], Matrix] | None:
    try:
        compiled = load()
    except ImportError as error:
        tell_of_missing(error)
        return None
    return lambda texts: compiled(encode(texts))


def tell_of_missing(error: ImportError) -> None:
    """A word on why it takes so long."""
    warnings.warn(f"{error}: filters take some 20 times as long; run: pip install 'smelt[data]'", stacklevel=3)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = characters = 0
    for stop, text in enumerate(texts, 1):
        characters += len(text)
        full = characters >= BATCH_CHARACTERS or stop - start == BATCH_DOCUMENTS
        if full or stop == len(texts):
            yield texts[start:stop]
            start, characters = stop, 0


def share(part: float, whole: float) -> float:
    """Part of a whole; of nothing it is 0."""
    return part / whole if whole else 0.0
