"""A fast path beside the plain one: it is used only once it has given the same results on a sample of the corpus."""

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
SAMPLE_DOCUMENTS = 64
SAMPLE_CHARACTERS = 500_000


class Proven(Generic[T]):
    """A function of many texts, computed by `fast` where it equals `plain`, else, with a word, by `plain`.

    The first texts are the sample, until they are `SAMPLE_DOCUMENTS` texts or `characters` characters; an exception of
    `fast` there counts as a difference. `equal` compares two results. `fast` may be None where its library is missing.
    """

    def __init__(
        self,
        name: str,
        plain: Callable[[Sequence[str]], T],
        fast: Callable[[Sequence[str]], T] | None,
        equal: Callable[[T, T], bool] = operator.eq,
        characters: int = SAMPLE_CHARACTERS,
    ) -> None:
        self._name, self._plain, self._fast, self._equal, self._enough = name, plain, fast, equal, characters
        self._documents = self._characters = 0

    def __call__(self, texts: Sequence[str]) -> T:
        if self._fast is None:
            return self._plain(texts)
        sample = self._sample(texts)
        if sample:
            difference = self._difference(sample, self._plain(sample))
            if difference:
                self._fast = None
                warnings.warn(f"{self._name}: the fast path {difference}; the plain one goes on", stacklevel=2)
                return self._plain(texts)
        return self._fast(texts)

    def _sample(self, texts: Sequence[str]) -> Sequence[str]:
        """As many of the first texts as are wanted yet."""
        count = 0
        for text in texts:
            if self._documents >= SAMPLE_DOCUMENTS or self._characters >= self._enough:
                break
            count += 1
            self._documents += 1
            self._characters += len(text)
        return texts[:count]

    def _difference(self, texts: Sequence[str], expected: Any) -> str:
        assert self._fast is not None
        try:
            return "" if self._equal(self._fast(texts), expected) else "differs from the plain one on this corpus"
        except Exception as error:  # whatever a compiled library raises
            return f"failed ({error})"
