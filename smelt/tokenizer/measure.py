"""How well a tokenizer fits texts: tokens a word, words in pieces, bytes a token, and speed, by language and domain.

Fertility and the proportion of continued words (PCW) are those of Rust et al. 2021, "How Good is Your Tokenizer?".
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from smelt.corpus.proven import SAMPLE_DOCUMENTS
from smelt.errors import InputError
from smelt.tokenizer.encode import Encoder
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.tokenizer.words import splitter

METRICS = {
    "fertility": "tokens a word",
    "pcw": "share of words in two or more tokens",
    "bytes_per_token": "bytes a token",
    "characters_per_token": "characters a token",
    "megabytes_per_second": "MB encoded a second",
}
_WITHIN_A_LANGUAGE = ("bytes_per_token", "characters_per_token")


@dataclass(frozen=True)
class Texts:
    """Texts of one language (an ISO 639 code) and domain."""

    language: str
    domain: str
    texts: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """What one tokenizer made of one set of texts, in counts that add up.

    `words` were encoded each on its own, without special tokens, into `word_tokens`; `continued` of them into two or
    more. The texts, `bytes` in UTF-8 and `characters` code points long, became `tokens` in `seconds`.
    """

    tokenizer: str
    language: str
    domain: str
    words: int
    word_tokens: int
    continued: int
    tokens: int
    bytes: int
    characters: int
    seconds: float

    @property
    def fertility(self) -> float:
        """Mean tokens a word."""
        return self.word_tokens / self.words

    @property
    def pcw(self) -> float:
        """Share of the words that take two or more tokens."""
        return self.continued / self.words

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text a token; compares tokenizers within one language only."""
        return self.bytes / self.tokens

    @property
    def characters_per_token(self) -> float:
        """Characters of text a token; compares tokenizers within one language only."""
        return self.characters / self.tokens

    @property
    def megabytes_per_second(self) -> float:
        """Speed of encoding on this machine, 1e6 bytes of text a second."""
        return self.bytes / 1e6 / self.seconds

    def row(self) -> dict[str, Any]:
        """Counts and ratios, JSON-serialisable."""
        return {**asdict(self), **{metric: getattr(self, metric) for metric in METRICS}}


def measure(name: str, encode: Encoder, texts: Texts, words: Mapping[str, int]) -> Measured:
    """One tokenizer on one set of texts, whose `words` are given with their counts."""
    encode.restart()
    lengths = encode(list(words)).lengths
    counts = np.fromiter(words.values(), dtype=np.int64, count=len(words))
    encode.restart()
    encode(list(islice(cycle(texts.texts), SAMPLE_DOCUMENTS)))  # a whole sample, lest the timed pass be compared too
    start = time.perf_counter()
    tokens = len(encode(texts.texts).ids)
    seconds = time.perf_counter() - start
    return Measured(
        tokenizer=name,
        language=texts.language,
        domain=texts.domain,
        words=int(counts.sum()),
        word_tokens=int(counts @ lengths),
        continued=int(counts @ (lengths >= 2)),
        tokens=tokens,
        bytes=sum(len(text.encode()) for text in texts.texts),
        characters=sum(map(len, texts.texts)),
        seconds=seconds,
    )


def compare(tokenizers: Mapping[str, Tokenizer], samples: Iterable[Texts]) -> list[Measured]:
    """Every tokenizer on every set of texts. Raises InputError for texts without words or in an unknown language."""
    encoders = {name: Encoder(tokenizer) for name, tokenizer in tokenizers.items()}
    found = []
    for each in samples:
        split = splitter(each.language)
        words = Counter(word for text in each.texts for word in split(text))
        if not words:
            raise InputError(f"{each.language}/{each.domain}: no words in these texts; check the path and the field")
        found += [measure(name, encode, each, words) for name, encode in encoders.items()]
    return found


def pooled(rows: Iterable[Measured]) -> list[Measured]:
    """One row a tokenizer and language, over all its domains."""
    found: dict[tuple[str, str], Measured] = {}
    for row in rows:
        before = found.get((row.tokenizer, row.language))
        found[row.tokenizer, row.language] = _sum(before, row) if before else replace(row, domain="all")
    return list(found.values())


def across(rows: Iterable[Measured], metric: str) -> dict[str, dict[str, float]]:
    """{tokenizer: {language: value}} of a metric, over all domains; InputError as `check_metric`."""
    rows = pooled(rows)
    check_metric(metric, {row.language for row in rows})
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.tokenizer, {})[row.language] = getattr(row, metric)
    return found


def check_metric(metric: str, languages: Collection[str]) -> None:
    """Raises InputError for an unknown metric, and for bytes or characters a token of several languages.

    Scripts and word lengths differ, so those numbers would compare the languages, not the tokenizers.
    """
    if metric not in METRICS:
        raise InputError(f"metric '{metric}': unknown; choose one of {', '.join(METRICS)}")
    if metric in _WITHIN_A_LANGUAGE and len(languages) > 1:
        raise InputError(
            f"{metric} cannot compare {', '.join(sorted(languages))}: a Chinese character takes three bytes, and words "
            "differ in length from language to language; compare by fertility or pcw, or within one language"
        )


def _sum(one: Measured, other: Measured) -> Measured:
    names = {"tokenizer", "language", "domain"}
    counts = [field.name for field in fields(Measured) if field.name not in names]
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in counts})
