"""A source's documents on disk: one compressed JSON Lines file for training and one for validation.

A hash of a document's text alone chooses its split, so copies stay together.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from smelt.corpus import streams
from smelt.corpus.document import Document
from smelt.errors import InputError

SPLITS = ("train", "validation")
Counts = dict[str, dict[str, int]]


def documents(corpus: Path, source: str, split: str) -> Iterator[Document]:
    """The documents of one split of a built corpus, in its order."""
    file = split_file(corpus / source, split)
    if not file.is_file():
        known = ", ".join(sorted(folder.name for folder in corpus.glob("*") if list(folder.glob("*.jsonl.zst"))))
        raise InputError(f"{file}: the corpus has no such split (sources there: {known or 'none'}); build it again")
    return rows(file)


def rows(file: Path) -> Iterator[Document]:
    """The documents of a file that `line` wrote."""
    for _, content in streams.lines(file):
        yield Document(**json.loads(content))


def line(document: Document) -> str:
    """A document as one line of JSON, without a line end; `facts` only where there are any."""
    row = {"text": document.text, "id": document.id, "source": document.source}
    return json.dumps({**row, "facts": document.facts} if document.facts else row, ensure_ascii=False)


def text_share(text: str) -> float:
    """A number in [0, 1) that a text alone decides; those below `validation_fraction` are kept for validation."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"smelt split").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def write_splits(folder: Path, incoming: Iterator[Document], validates: Callable[[float], bool]) -> Counts:
    """Write each document to the split that `validates`, given its share, chooses; returns {split: {"documents",
    "bytes"}}, bytes of text."""
    counts = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
    with (
        streams.zstd_writer(split_file(folder, "train")) as train,
        streams.zstd_writer(split_file(folder, "validation")) as validation,
    ):
        for document in incoming:
            chosen = validates(text_share(document.text))
            counts[SPLITS[chosen]]["documents"] += 1
            counts[SPLITS[chosen]]["bytes"] += len(document.text.encode())
            print(line(document), file=validation if chosen else train)
    return counts


def join(folder: Path, parts: Sequence[tuple[Path, Counts]]) -> Counts:
    """Join the splits of several folders, in order, into those of `folder`; returns the sums of their counts."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
    for split in SPLITS:
        with split_file(folder, split).open("wb") as whole:
            for part, counted in parts:
                counts[split]["documents"] += counted[split]["documents"]
                counts[split]["bytes"] += counted[split]["bytes"]
                with split_file(part, split).open("rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
    return counts


def with_both(folder: Path, counts: Counts) -> Counts:
    """Give an empty split of a small source one text (and its copies): the nearest to it by share."""
    for empty, other in (SPLITS, SPLITS[::-1]):
        if not counts[empty]["documents"]:
            counts = _fill(folder, empty, other)
    return counts


def split_file(folder: Path, split: str) -> Path:
    """Where a split of a source lies."""
    return folder / f"{split}.jsonl.zst"


def _fill(folder: Path, empty: str, other: str) -> Counts:
    shares = [text_share(document.text) for document in rows(split_file(folder, other))]
    edge = min(shares) if empty == "validation" else max(shares)
    if min(shares) == max(shares):
        raise InputError("only one text, and training and validation need one each; split it into several documents")
    whole = split_file(folder, other).rename(split_file(folder, "whole"))
    counts = write_splits(folder, rows(whole), lambda share: (share == edge) == (empty == "validation"))
    whole.unlink()
    return counts
