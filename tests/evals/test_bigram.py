"""The bigram gives every token the probability that its counts say."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.evals.bigram import fit

EOS = 0
Documents = list[list[int]]


def slow_bits(train: Documents, scored: Documents, vocabulary: int, weights: tuple[float, float, float]) -> float:
    """Interpolated bigram from dictionaries."""
    pairs = [pair for document in train for pair in pairwise(document)]
    both, first, second = Counter(pairs), Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    bits = 0.0
    for document in scored:
        bits += math.log2(vocabulary)
        for a, b in pairwise(document):
            parts = (both[a, b] / max(1, first[a]), second[b] / max(1, len(pairs)), 1 / vocabulary)
            bits -= math.log2(sum(weight * part for weight, part in zip(weights, parts, strict=True)))
    return bits


def drawn(seed: int, documents: int, vocabulary: int) -> Documents:
    draw = np.random.default_rng(seed)
    return [[*draw.integers(1, vocabulary, draw.integers(0, 12)).tolist(), EOS] for _ in range(documents)]


@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([2, 7, 50_000]))
def test_bits_are_those_of_a_slow_reference(seed: int, documents: int, vocabulary: int) -> None:
    train, scored = drawn(seed, documents, vocabulary), drawn(seed + 1, 5, vocabulary)
    bigram = fit(np.concatenate(train), EOS, vocabulary)
    assert sum(bigram.weights) == pytest.approx(1)
    bits = bigram.bits(np.array(document) for document in scored)
    assert bits == pytest.approx(slow_bits(train, scored, vocabulary, bigram.weights), rel=1e-9)


def test_no_bigram_crosses_from_one_document_to_the_next() -> None:
    bigram = fit(np.array([1, 2, EOS, 3, 4, EOS]), EOS, 5)
    assert {divmod(int(code), 5) for code in bigram.codes} == {(1, 2), (2, EOS), (3, 4), (4, EOS)}


def test_the_weights_follow_the_text() -> None:
    """Where each token decides the next, the bigram carries the weight; where nothing does, it does not."""
    draw = np.random.default_rng(0)
    ruled = fit(np.tile([1, 2, 3, 4, EOS], 2000), EOS, 8)
    loose = fit(draw.integers(1, 500, 20_000), EOS, 500)
    assert ruled.weights[0] > 0.99
    assert loose.weights[0] < 0.1


def test_it_beats_guessing_on_text_like_its_own() -> None:
    """On a loop of four tokens the first costs log2 of the vocabulary and the others next to nothing."""
    bigram = fit(np.tile([1, 2, 3, 4, EOS], 2000), EOS, 8)
    assert bigram.bits([np.array([1, 2, 3, 4, EOS])]) == pytest.approx(3, abs=0.05)
