"""Words and sentences: the same rules for every language."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.filters import characters
from smelt.corpus.filters.signs import BREAKS, is_broken, is_mark
from smelt.corpus.filters.splitter import split_sentences, split_words

EVERY = list(map(chr, range(0x110000)))


def test_words_keep_what_stands_inside_them_and_lose_what_stands_around() -> None:
    assert split_words('I don\'t like "U.S. tea", 3.14 times...') == [
        *("I", "don't", "like", '"', "U.S", ".", "tea", '"', ",", "3.14", "times", "..."),
    ]


def test_a_run_of_one_sign_is_one_word_and_signs_that_differ_are_one_each() -> None:
    assert split_words("a--b ~~~~~~ ## !? ──") == ["a", "--", "b", "~~~~~~", "##", "!", "?", "──"]


def test_a_mark_belongs_to_its_letter() -> None:
    assert split_words("cafe\u0301s नमस्ते मुंबई") == ["cafe\u0301s", "नमस्ते", "मुंबई"]


def test_each_ideograph_and_each_kana_is_a_word() -> None:
    assert split_words("我学习Python,かな哈哈") == ["我", "学", "习", "Python", ",", "か", "な", "哈", "哈"]


@given(st.text())
def test_words_hold_every_character_but_white_space(text: str) -> None:
    assert "".join(split_words(text)) == "".join(text.split())


def test_sentences_end_at_punctuation_before_white_space() -> None:
    assert split_sentences('He said "It is 3.14." Is it?! I (too) know (so.) Then') == [
        'He said "It is 3.14."',
        "Is it?!",
        "I (too) know (so.)",
        "Then",
    ]


def test_other_scripts_need_no_white_space_between_sentences() -> None:
    assert split_sentences("你好。再见\uff01好的」是。」") == ["你好。", "再见\uff01", "好的」是。」"]


def test_a_piece_without_letter_or_digit_is_no_sentence() -> None:
    assert split_sentences("Yes. . . . No. --") == ["Yes.", "No."]


def test_the_table_of_characters_is_what_python_knows_of_each() -> None:
    table = characters.flags()
    for flag, test in (
        (characters.SPACE, str.isspace),
        (characters.ALPHA, str.isalpha),
        (characters.DIGIT, str.isdecimal),
        (characters.UPPER, str.isupper),
        (characters.MARK, is_mark),
        (characters.BROKEN, is_broken),
        (characters.WORD, lambda char: char.isalnum() or char == "_"),
        (characters.BREAK, lambda char: len(f"{char}.".splitlines()) == 2),
    ):
        assert np.array_equal(table & flag != 0, np.fromiter(map(test, EVERY), bool, len(EVERY))), flag
    assert all(char.isspace() for char in BREAKS)


def test_only_capitals_and_the_kelvin_sign_have_ascii_lower_case() -> None:
    """Compiled loops look for phrases of ASCII without asking Python for lower case."""
    lowered = {char for char in EVERY if len(char.lower()) == 1 and char.lower().isascii() and char.lower() != char}
    assert lowered == {*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "\u212a"}
