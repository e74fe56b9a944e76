"""A token bigram of the training text: the bits per byte that a model which looks one token back already reaches.

P(b | a) = w2 count(a b) / count(a .) + w1 count(b) / N + w0 / V, the weights learnt by expectation-maximisation on a
held-back end of the stream (Jelinek and Mercer 1980). Counts are sparse, so a large vocabulary costs little.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
_HELD_BACK = 0.1
_ROUNDS = 30


@dataclass(frozen=True)
class Bigram:
    """Sorted codes a * vocabulary + b of the bigrams seen, their counts, counts of a and of b, and the weights.

    `weights` are those of bigram, unigram and uniform, and sum to 1.
    """

    vocabulary: int
    codes: Tokens
    counts: Tokens
    firsts: Tokens
    seconds: Tokens
    weights: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def bits(self, documents: Iterable[Tokens]) -> float:
        """Bits of whole documents; the first token of each costs log2 of the vocabulary, as nothing predicts it."""
        total = 0.0
        for tokens in documents:
            expected = self._components(tokens[:-1], tokens[1:]) @ np.array(self.weights)
            total += float(np.log2(self.vocabulary) - np.log2(expected).sum())
        return total

    def _components(self, first: Tokens, second: Tokens) -> NDArray[np.float64]:
        """Probability of each second token by bigram, unigram and uniform: `[pairs, 3]`."""
        wanted = first * self.vocabulary + second
        places = np.searchsorted(self.codes, wanted).clip(max=max(0, len(self.codes) - 1))
        seen = self.codes[places] == wanted if len(self.codes) else np.zeros(len(wanted), dtype=bool)
        bigram = np.where(seen, self.counts[places] if len(self.codes) else 0, 0) / np.maximum(1, self.firsts[first])
        unigram = self.seconds[second] / max(1, self.seconds.sum())
        return np.stack([bigram, unigram, np.full(len(wanted), 1 / self.vocabulary)], axis=1)


def fit(stream: NDArray[np.integer], eos: int, vocabulary: int) -> Bigram:
    """The bigram of a stream of whole documents, each ended by `eos`; no bigram crosses from one to the next.

    The weights are learnt on the last tenth of the pairs with counts of the rest; the counts kept are those of all.
    """
    first, second = _pairs(np.asarray(stream, dtype=np.int64), eos)
    cut = len(first) - int(len(first) * _HELD_BACK)
    early = _count(first[:cut], second[:cut], vocabulary)
    weights = _weights(early._components(first[cut:], second[cut:]))
    whole = _count(first, second, vocabulary)
    return Bigram(vocabulary, whole.codes, whole.counts, whole.firsts, whole.seconds, weights)


def _pairs(stream: Tokens, eos: int) -> tuple[Tokens, Tokens]:
    inside = stream[:-1] != eos
    return stream[:-1][inside], stream[1:][inside]


def _count(first: Tokens, second: Tokens, vocabulary: int) -> Bigram:
    codes, counts = np.unique(first * vocabulary + second, return_counts=True)
    firsts, seconds = (np.bincount(each, minlength=vocabulary) for each in (first, second))
    return Bigram(vocabulary, codes, counts, firsts, seconds)


def _weights(components: NDArray[np.float64]) -> tuple[float, float, float]:
    weights = np.full(3, 1 / 3)
    for _ in range(_ROUNDS if len(components) else 0):
        shares = components * weights
        weights = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    return float(weights[0]), float(weights[1]), float(weights[2])
