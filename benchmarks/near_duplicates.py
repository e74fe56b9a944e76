"""A corpus of real English with planted near-duplicates whose similarity is known, and how well they were found.

Similarity is Jaccard's, of the sets of 5-word shingles in lower case, split at blanks.
"""

import json
import os
import random
import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smelt.corpus import streams

WORDS = 300  # of a document
SHINGLE = 5
LEVELS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_FILES = ("en_textbooks", "en_books", "en_technical_peps", "en_technical_eips", "en_wikitext2")


@dataclass(frozen=True)
class Planted:
    """`texts` in the order of the corpus; `pairs` are indices of a document and its copy, with their similarity."""

    texts: list[str]
    pairs: list[tuple[int, int, float]]

    @property
    def megabytes(self) -> float:
        return sum(len(text.encode()) for text in self.texts) / 1e6

    def write(self, path: Path) -> None:
        """As JSON Lines."""
        rows = (json.dumps({"text": text, "id": str(number)}) for number, text in enumerate(self.texts))
        path.write_text("\n".join(rows) + "\n")


def planted(megabytes: float, each: int) -> Planted:
    """About so much text of `$SMELT_DATA`, with `each` copies at each of `LEVELS`, in random order."""
    draw = random.Random(0)
    documents = _documents(megabytes)
    chosen = iter(draw.sample(range(len(documents)), each * len(LEVELS)))
    copies = [(next(chosen), level) for level in LEVELS for _ in range(each)]
    texts = documents + [_edited(documents[base], level, draw) for base, level in copies]
    places = list(range(len(texts)))
    draw.shuffle(places)
    shuffled = [""] * len(texts)
    for text, place in zip(texts, places, strict=True):
        shuffled[place] = text
    pairs = [
        (places[base], places[len(documents) + number], similarity(documents[base], texts[len(documents) + number]))
        for number, (base, _) in enumerate(copies)
    ]
    return Planted(shuffled, pairs)


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of two texts."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / max(len(first | second), 1)


def recall(corpus: Planted, labels: NDArray[np.int64]) -> dict[float, float]:
    """The share of pairs that carry one label, at each level (the nearest to the pair's similarity)."""
    found: dict[float, list[bool]] = defaultdict(list)
    for one, other, similar in corpus.pairs:
        level = min(LEVELS, key=lambda level: abs(level - similar))
        found[level].append(bool(labels[one] == labels[other]))
    return {level: float(np.mean(found[level])) for level in LEVELS if found[level]}


def dropped_similarities(corpus: Planted, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How similar each dropped document is to the most similar other one of its label."""
    members: dict[int, list[int]] = defaultdict(list)
    for document, label in enumerate(labels.tolist()):
        members[label].append(document)
    best = [
        max(similarity(corpus.texts[document], corpus.texts[other]) for other in cluster if other != document)
        for cluster in members.values()
        for document in cluster[1:]
    ]
    return np.array(best, np.float64)


def _documents(megabytes: float) -> list[str]:
    """Pieces of `WORDS` words, each file in its turn so that a small corpus is mixed too."""
    folder = Path(os.environ["SMELT_DATA"], "pretrain")
    queues = [_pieces(folder / f"{name}.jsonl.gz") for name in _FILES]
    found, size = [], 0
    while size < 1e6 * megabytes and any(queues):
        for queue in queues:
            if queue:
                found.append(queue.pop())
                size += len(found[-1].encode())
    return found


def _pieces(file: Path) -> list[str]:
    found = []
    for _, line in streams.lines(file):
        words = json.loads(line)["text"].split(" ")
        found += [" ".join(words[first : first + WORDS]) for first in range(0, len(words) - WORDS + 1, WORDS)]
    return found[::-1]


def _edited(text: str, level: float, draw: random.Random) -> str:
    """The text with words replaced, far enough apart that each takes five shingles with it, down to the similarity."""
    words = text.split(" ")
    shingles = len(words) - SHINGLE + 1
    count = round(shingles * (1 - level) / (SHINGLE * (1 + level)))
    for block in draw.sample(range(1, len(words) // SHINGLE - 1), count):
        words[block * SHINGLE + 2] = "".join(draw.choices(string.ascii_lowercase, k=8))
    return " ".join(words)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words: Sequence[str] = text.lower().split()
    return set(zip(*(words[first:] for first in range(SHINGLE)), strict=False))
