"""Exact and near duplicates: which are found, which document stays, and what is compared with what."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smelt.corpus import streams
from smelt.corpus.duplicates import minhash, originals, signatures
from smelt.recipe.sections.duplicates import AnyDuplicates, Exact, MinHash

EXACT, NEAR = Exact(kind="exact"), MinHash(kind="minhash")
WORDS = 204  # of a planted text: 200 shingles of five words


@pytest.fixture
def shared_texts(shared_data: Path) -> list[str]:
    """The first short documents of many languages, and code."""
    found = []
    for name in ("ar", "de", "zh", "en_wikitext2", "code_python_stdlib", "math_gsm8k_train"):
        lines = itertools.islice(streams.lines(shared_data / "pretrain" / f"{name}.jsonl.gz"), 8)
        found += [json.loads(line)["text"][:5_000] for _, line in lines]
    return found


def kept(
    section: AnyDuplicates, texts: list[str], groups: list[int] | None = None, alive: list[bool] | None = None
) -> list[int]:
    return originals(
        section,
        signatures(section, texts),
        np.array(groups or [0] * len(texts), np.int64),
        np.array(alive or [True] * len(texts)),
    ).tolist()


def pairs(similarity: float, count: int) -> list[str]:
    """`count` texts of words drawn at random, each followed by one of that Jaccard similarity (of 5-word shingles)."""
    shared = 4 + round(2 * similarity * (WORDS - 4) / (1 + similarity))
    drawn = np.random.default_rng(0).integers(0, 1 << 40, (count, 2 * WORDS - shared)).tolist()
    texts = []
    for numbers in drawn:
        words = [f"w{number}" for number in numbers]
        texts += [" ".join(words[:WORDS]), " ".join(words[:shared] + words[WORDS:])]
    return texts


def found(texts: list[str]) -> float:
    """The share of pairs that were found."""
    return float(np.mean(np.array(kept(NEAR, texts))[1::2] == np.arange(0, len(texts), 2)))


def test_the_first_of_equal_texts_is_kept() -> None:
    assert kept(EXACT, ["a", "b", "a", "a ", "b", "a"]) == [0, 1, 0, 3, 1, 0]


def test_exact_signatures_are_128_bits_that_do_not_depend_on_the_other_texts() -> None:
    made = signatures(EXACT, ["a", "b", "a"])
    assert made.dtype == np.uint64 and made.shape == (3, 2)
    assert np.array_equal(made[0], made[2]) and not (made[0] == made[1]).any()
    assert np.array_equal(signatures(EXACT, ["b"])[0], made[1])


@pytest.mark.parametrize("kind", [Exact, MinHash])
def test_sources_are_compared_only_if_asked(kind: type) -> None:
    texts, groups = ["one two three four five six"] * 4, [0, 0, 1, 1]
    name = kind.model_fields["kind"].annotation.__args__[0]
    assert kept(kind(kind=name, across=True), texts, groups) == [0, 0, 0, 0]
    assert kept(kind(kind=name, across=False), texts, groups) == [0, 0, 2, 2]


@pytest.mark.parametrize("section", [EXACT, NEAR], ids=["exact", "minhash"])
def test_dropped_documents_neither_repeat_nor_are_repeated(section: AnyDuplicates) -> None:
    texts = ["one two three four five six"] * 4
    assert kept(section, texts, alive=[False, True, False, True]) == [0, 1, 2, 1]


def test_near_duplicates_are_found_with_the_probability_that_bands_promise() -> None:
    for similarity in (0.5, 0.7, 0.8, 0.9):
        promised = 1 - (1 - similarity**NEAR.rows) ** NEAR.bands
        allowed = 4 * np.sqrt(promised * (1 - promised) / 300) + 0.01
        assert found(pairs(similarity, 300)) == pytest.approx(promised, abs=allowed)


def test_minima_agree_as_often_as_texts_are_similar() -> None:
    texts = pairs(0.6, 200)
    agree = minhash.fast(texts, 5, 64, 1)
    share = (agree[::2] == agree[1::2]).mean(axis=1)
    assert share.mean() == pytest.approx(0.6, abs=4 * np.sqrt(0.6 * 0.4 / 64 / 200))
    assert share.std() == pytest.approx(np.sqrt(0.6 * 0.4 / 64), rel=0.25)


def test_bands_rows_and_ngram_change_what_is_found() -> None:
    texts = pairs(0.8, 100)
    counts = [
        np.sum(np.array(kept(MinHash(kind="minhash", **fields), texts)) != np.arange(len(texts)))
        for fields in ({"bands": 1}, {"rows": 1}, {"ngram": 40}, {})
    ]
    assert counts[0] < counts[3] < counts[1] == 100 and counts[2] < counts[3]


def test_short_texts_are_near_duplicates_only_when_their_words_are_equal() -> None:
    texts = ["Hello, world", "hello world!", "hello there", "world hello", "hello world world"]
    assert kept(NEAR, texts) == [0, 0, 2, 3, 4]


def test_texts_without_words_repeat_nothing() -> None:
    assert kept(NEAR, ["...", "...", "", "!?"]) == [0, 1, 2, 3]


def test_chains_of_near_duplicates_keep_their_first() -> None:
    words = [f"w{number}" for number in range(120)]
    steps = [words[shift : shift + 100] for shift in (20, 12, 16, 8, 0, 4)]
    assert kept(NEAR, [" ".join(step) for step in steps] + ["something else altogether"]) == [0] * 6 + [6]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), max_size=20),
    st.data(),
)
def test_originals_are_the_first_of_each_connected_component(bands: list[list[int]], data: st.DataObject) -> None:
    count = len(bands)
    groups = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    alive = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    across = data.draw(st.booleans())
    table = np.array(bands, np.uint64).reshape(count, 3)
    section = MinHash(kind="minhash", bands=3, across=across)
    answer = originals(section, table, np.array(groups, np.int64), np.array(alive, bool))

    def linked(one: int, other: int) -> bool:
        same = any(a == b != 0 for a, b in zip(bands[one], bands[other], strict=True))
        return same and alive[one] and alive[other] and (across or groups[one] == groups[other])

    expected = list(range(count))
    for _ in range(count):
        for one in range(count):
            for other in range(count):
                if linked(one, other):
                    expected[one] = expected[other] = min(expected[one], expected[other])
    assert answer.tolist() == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.sampled_from("ab \u4e2d.")), max_size=6), st.integers(1, 7))
def test_compiled_signatures_equal_the_plain_ones(texts: list[str], ngram: int) -> None:
    assert np.array_equal(minhash.fast(texts, ngram, 3, 2), minhash.plain(texts, ngram, 3, 2))


def test_compiled_signatures_equal_the_plain_ones_on_real_texts(shared_texts: list[str]) -> None:
    made: NDArray[np.uint64] = minhash.fast(shared_texts, 5, 14, 8)
    assert np.array_equal(made, minhash.plain(shared_texts, 5, 14, 8))
