"""Which documents repeat a protected text, such as a question of a benchmark: shared runs of words are counted.

Words are compared as `smelt.corpus.ngrams` has them, so that case, accents, punctuation and spacing hide no copy.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus import readers
from smelt.corpus.document import Document
from smelt.corpus.ngrams import joined, run_hashes, table, word_hashes, words
from smelt.corpus.proven import Proven
from smelt.errors import InputError
from smelt.recipe.sections.protected import Decontaminate
from smelt.recipe.sections.protected import Protected as Against
from smelt.recipe.sections.readers import JsonLines, Parquet

SHORTEST = 5  # words; a shorter text would be found by chance
_BITS_EACH = 32  # of the bitmap that most runs are turned away by

Matches = tuple[NDArray[np.int64], NDArray[np.object_]]


def inputs(section: Decontaminate) -> list[Any]:
    """The files of protected texts, as a fingerprint has them; InputError where there is none."""
    found = []
    for number, each in enumerate(section.against):
        with _naming(number):
            found.append(readers.inputs(_reader(each), 0))
    return found


class Protected:
    """Scores documents by the runs of `ngram` words that they share with a protected text.

    A protected text of fewer words is looked for whole if it has at least `SHORTEST`; shorter ones cannot be, and a
    warning counts them.
    """

    def __init__(self, section: Decontaminate) -> None:
        runs = _protected(section)
        self._ngram = section.ngram
        self._runs = {length: frozenset(found.tolist()) for length, found in runs.items()}
        self._lengths = np.array(sorted(runs), np.int64)
        self._sorted = np.unique(np.concatenate(list(runs.values())))
        self._bitmap = _bitmap(self._sorted)
        self._matches = Proven("decontaminate", self.plain, self.fast, _equal)

    def score(self, documents: Sequence[Document]) -> dict[str, NDArray[Any]]:
        """Columns `hits`, how many runs match (int64 [documents]), and `match`, the words of one of them or ""."""
        hits, match = self._matches([document.text for document in documents])
        return {"hits": hits, "match": match}

    def plain(self, texts: Sequence[str]) -> Matches:
        """The two columns, computed as they are defined."""
        hits, match = [], []
        for text in texts:
            hashes = word_hashes(text)
            found = [
                (length, place)
                for length in self._lengths.tolist()
                for place, run in enumerate(run_hashes(hashes, length).tolist())
                if run in self._runs[length]
            ]
            hits.append(len(found))
            match.append(_run(text, *found[0]) if found else "")
        return np.array(hits, np.int64), np.array(match, np.object_)

    def fast(self, texts: Sequence[str]) -> Matches:
        """The two columns, compiled."""
        from smelt.corpus import ngram_kernels

        hashes, ends = ngram_kernels.word_hashes(*joined(texts), table())
        hits, places, lengths = ngram_kernels.matches(hashes, ends, self._lengths, self._sorted, self._bitmap)
        match = [
            _run(text, length, place) if hit else ""
            for text, hit, length, place in zip(texts, hits, lengths, places, strict=True)
        ]
        return hits, np.array(match, np.object_)


def _protected(section: Decontaminate) -> dict[int, NDArray[np.uint64]]:
    """Hashes of all protected runs by their length."""
    runs: dict[int, list[NDArray[np.uint64]]] = {}
    for number, against in enumerate(section.against):
        with _naming(number):
            for length, hashes in _runs(against, section.ngram):
                runs.setdefault(length, []).append(hashes)
    return {length: np.unique(np.concatenate(found)) for length, found in runs.items()}


def _runs(against: Against, ngram: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    texts = short = 0
    for document in readers.read(_reader(against), "protected", 0):
        hashes = word_hashes(document.text)
        length = min(ngram, len(hashes))
        texts += 1
        if length < min(ngram, SHORTEST):
            short += 1
        else:
            yield length, run_hashes(hashes, length)
    place = f"field '{against.field}' of {against.path}"
    if texts == short:
        raise InputError(f"{place} has no text of {SHORTEST} words or more; name another field")
    if short:
        warnings.warn(
            f"{place}: {short} of {texts} texts have under {SHORTEST} words, and are not looked for", stacklevel=2
        )


def _reader(against: Against) -> JsonLines | Parquet:
    folder = Path(os.path.expanduser(against.path))
    if against.path.endswith(".parquet") or (folder.is_dir() and any(folder.rglob("*.parquet"))):
        return Parquet(kind="parquet", path=against.path, field=against.field, id_field=None)
    return JsonLines(kind="jsonl", path=against.path, field=against.field, id_field=None)


@contextlib.contextmanager
def _naming(number: int) -> Iterator[None]:
    """Put the key before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"corpus.decontaminate.against.{number}: {error}") from error


def _bitmap(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    size = 1 << (max(_BITS_EACH * len(hashes), 64) - 1).bit_length()
    bits = np.zeros(size, np.uint8)
    bits[hashes & np.uint64(size - 1)] = 1
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def _run(text: str, length: int, place: int) -> str:
    return " ".join(words(text)[place : place + length])


def _equal(one: Matches, other: Matches) -> bool:
    return all(map(np.array_equal, one, other))
