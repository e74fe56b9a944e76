"""Text -> words, as a reader of its language would count them: what fertility divides by.

Where spaces part words, a pattern finds them; Chinese, Japanese and Thai take a segmenter, from the extra `lab`.
"""

import re
from collections.abc import Callable, Sequence

import regex

from smelt.errors import InputError

# A number with its separators, a word with its marks and hyphens, or one sign. French and Italian words part behind an
# apostrophe (l' homme), English ones before it (she 's).
_NUMBER = r"\p{N}+(?:[.,]\p{N}+)*(?![\p{L}\p{M}_])"
_WORD = r"[\p{L}\p{M}\p{N}_]+(?:-[\p{L}\p{M}\p{N}_]+)*"
_PLAIN = regex.compile(rf"{_NUMBER}|{_WORD}|\S")
_ELIDING = regex.compile(rf"{_NUMBER}|\p{{L}}+['\u2019](?=\p{{L}})|{_WORD}|\S")
_CLITICS = regex.compile(rf"{_NUMBER}|['\u2019](?:s|re|ve|ll|d|m|t)\b|{_WORD}|\S", regex.IGNORECASE)
_UNSPACED = {"km": "Khmer", "lo": "Lao", "my": "Burmese", "bo": "Tibetan", "dz": "Dzongkha"}
_CODE = re.compile(r"[a-z]{2,3}")

Split = Callable[[str], list[str]]


def splitter(language: str) -> Split:
    """The word splitter of a language, named by its ISO 639 code: every run without white space falls into words.

    Signs are words of their own, white space none. Raises InputError for a language whose script parts no words and for
    which there is no segmenter, and where a segmenter's library is missing.
    """
    if not _CODE.fullmatch(language):
        raise InputError(f"language '{language}': not an ISO 639 code; write two or three letters such as en, fr or zh")
    if language in _UNSPACED:
        raise InputError(
            f"language '{language}': {_UNSPACED[language]} parts no words by spaces and there is no segmenter for it; "
            "compare tokenizers by bytes per token instead"
        )
    if language in _SEGMENTERS:
        library, load = _SEGMENTERS[language]
        try:
            return _solid(load())
        except ImportError:
            raise InputError(
                f"language '{language}': its words are found by {library}; install it (pip install 'smelt[lab]')"
            ) from None
    pattern = _ELIDING if language in ("fr", "it", "ca") else _CLITICS if language == "en" else _PLAIN
    return lambda text: [str(word) for word in pattern.findall(text)]


def _solid(segment: Callable[[str], Sequence[str]]) -> Split:
    """Pieces of a segmenter without the white space in them."""
    return lambda text: [word for piece in segment(text) for word in piece.split()]


def _chinese() -> Callable[[str], Sequence[str]]:
    import rjieba

    return lambda text: rjieba.cut(text)


def _japanese() -> Callable[[str], Sequence[str]]:
    from janome.tokenizer import Tokenizer

    segmenter = Tokenizer(wakati=True)
    return lambda text: list(map(str, segmenter.tokenize(text)))


def _thai() -> Callable[[str], Sequence[str]]:
    from pythainlp.tokenize import word_tokenize

    return lambda text: word_tokenize(text)


_SEGMENTERS: dict[str, tuple[str, Callable[[], Callable[[str], Sequence[str]]]]] = {
    "zh": ("rjieba", _chinese),
    "ja": ("janome", _japanese),
    "th": ("pythainlp", _thai),
}
