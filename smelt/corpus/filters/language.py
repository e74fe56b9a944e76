"""The language of a text, by the naive Bayes model over byte n-grams that py3langid brings or a fastText file.

py3langid walks each text through an automaton, byte by byte; the fast path compiles that walk and gives the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.document import Document
from smelt.corpus.filters.scores import Drops, Scores
from smelt.corpus.proven import Proven
from smelt.errors import InputError
from smelt.recipe.sections.judges import Language, model_file

Guess = tuple[str, float]
MOST_CHARACTERS = 20_000  # of one document; more of it makes no language clearer


class LanguageScorer:
    """Columns `language`, a code, and `score`, its probability; "" and 0 for a text without any words."""

    def __init__(self, section: Language) -> None:
        self._guess: Callable[[Sequence[str]], list[Guess]]
        if section.model is not None:
            self._guess = _fasttext(section.model)
        else:
            self._guess = Proven("language", *_naive_bayes())

    def score(self, documents: Sequence[Document]) -> dict[str, NDArray[Any]]:
        """[documents] each."""
        guesses = self._guess([document.text[:MOST_CHARACTERS] for document in documents])
        return {
            "language": np.array([code for code, _ in guesses], dtype=object),
            "score": np.array([score for _, score in guesses], dtype=np.float32),
        }


def reasons(section: Language, scores: Scores) -> Drops:
    """What is said of the documents that go."""
    kept = np.isin(scores["language"].astype(str), section.keep)
    return {
        f"not in {' or '.join(section.keep)}": ~kept,
        "of no clear language": kept & (scores["score"] < section.min_score),
    }


def _naive_bayes() -> tuple[Callable[[Sequence[str]], list[Guess]], Callable[[Sequence[str]], list[Guess]] | None]:
    """py3langid's classifier as it comes, and with a compiled walk where numba is installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise InputError("language filter: py3langid is not installed; pip install 'smelt[data]'") from None
    plain = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    try:
        from smelt.corpus.filters.walk import Walk
    except ImportError:
        return lambda texts: _classified(plain, texts), None

    class Compiled(LanguageIdentifier):
        """The same model, its features found by compiled code."""

        __slots__ = ("walk",)

        def _raw_score(self, text: bytes) -> Any:
            features, counts = self.walk(text)
            if not len(features):
                return np.zeros(len(self.nb_classes), np.float32)
            return np.log1p(counts.astype(np.float32)) @ self.nb_ptc[features] + self.nb_pc

    tables = plain.nb_ptc, plain.nb_pc, plain.nb_classes, plain.tk_nextmove, plain.tk_output
    fast = Compiled(*tables, norm_probs=True, tk_row=plain.tk_row)
    fast.walk = Walk(fast.tk_nextmove, fast.tk_row, fast.tk_output)
    return lambda texts: _classified(plain, texts), lambda texts: _classified(fast, texts)


def _classified(identifier: Any, texts: Sequence[str]) -> list[Guess]:
    return [identifier.classify(text) if text and not text.isspace() else ("", 0.0) for text in texts]


def _fasttext(path: str) -> Callable[[Sequence[str]], list[Guess]]:
    """The first label of a fastText model, without `__label__` and whatever follows `_` (eng_Latn is eng)."""
    file = model_file(path)
    try:
        import fasttext
    except ImportError:
        raise InputError("language filter: fasttext is not installed; pip install 'smelt[data]'") from None
    try:
        model = fasttext.load_model(str(file))
    except Exception as error:  # whatever the library raises for a file of another kind
        raise InputError(f"{file}: not a fastText model ({error}); name a .bin or .ftz file") from None

    def guess(texts: Sequence[str]) -> list[Guess]:
        found = []
        for text in texts:
            labels, scores = model.predict(" ".join(text.split()))
            known = bool(labels) and bool(text) and not text.isspace()
            code = labels[0].removeprefix("__label__").split("_")[0] if known else ""
            found.append((code, float(scores[0]) if known else 0.0))
        return found

    return guess
