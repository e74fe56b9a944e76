"""What counts as a word, and that the compiled loops read words and runs as the plain ones do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.corpus import ngram_kernels
from smelt.corpus.ngrams import joined, run_hashes, table, word_hashes, words

ANY_TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from(" \n.'-aA\u00e9\u0301\u200d\u4e2d\u30ab\ud55c\U0001f600"))
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The cat, sat.", "the  CAT\nsat"),
        ("It\u2019s a caf\u00e9", "it's a cafe\u0301"),
        ("\uff21\uff22\uff23 \uff11\uff12", "abc 12"),
        ("co\u00adop\u200berate", "cooperate"),
        ("**$5.00** (five)", "5 00 five"),
    ],
)
def test_case_accents_punctuation_and_spacing_make_no_difference(one: str, other: str) -> None:
    assert words(one) == words(other)


def test_each_chinese_or_japanese_character_is_a_word() -> None:
    assert words("\u4e2d\u6587abc\u30ab\u306a1") == ["\u4e2d", "\u6587", "abc", "\u30ab", "\u306a", "1"]


def test_letters_of_other_scripts_make_words_that_blanks_divide() -> None:
    assert words("\u0411\u043e\u043b\u044c\u0448\u043e\u0439 \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22") == [
        "\u0431\u043e\u043b\u044c\u0448\u043e\u0438",
        "\ud55c\uad6d\uc5b4",
        "\u0e44\u0e17\u0e22",
    ]


@settings(deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_compiled_word_hashes_equal_the_plain_ones(texts: list[str]) -> None:
    hashes, ends = ngram_kernels.word_hashes(*joined(texts), table())
    plain = [word_hashes(text) for text in texts]
    assert np.array_equal(hashes, np.concatenate(plain))
    assert ends.tolist() == np.cumsum([len(each) for each in plain]).tolist()


def test_runs_are_equal_exactly_where_their_words_are() -> None:
    hashes = word_hashes("a b c a b d a b c")
    runs = run_hashes(hashes, 3)
    assert len(runs) == 7
    assert runs[0] == runs[6] and len(set(runs.tolist())) == 6
    assert len(run_hashes(hashes, 10)) == 0
    assert not set(run_hashes(word_hashes("a"), 1)) & set(word_hashes("a"))
