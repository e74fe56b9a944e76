"""A recipe's sources -> one folder a source with compressed JSON Lines for training and validation, and a report.

Documents stream through: each goes to the split that a hash of its text alone chooses, so copies stay together.
"""

import contextlib
import hashlib
import itertools
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from smelt.corpus import arithmetic, streams
from smelt.corpus.document import Document
from smelt.corpus.files import matching
from smelt.corpus.readers import read
from smelt.errors import InputError
from smelt.files import stamp, whole_directory, write_json
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.corpus import Corpus, Reader

FORMAT = 1
SPLITS = ("train", "validation")
Progress = Callable[[str, int], None]
Report = dict[str, dict[str, dict[str, int]]]
_REPORT_EVERY = 256


def corpus_inputs(recipe: Recipe) -> dict[str, Any]:
    """Everything the corpus depends on, JSON-serialisable; two equal results mean the same documents."""
    corpus: Corpus = recipe.section("corpus")
    sources = {name: _reader_inputs(name, source.read, recipe.seed) for name, source in corpus.sources.items()}
    return {"format": FORMAT, "corpus": corpus.model_dump(), "sources": sources}


def build_corpus(recipe: Recipe, out: Path, progress: Progress | None = None) -> Report:
    """Write every source of the recipe under `out`; returns {source: {split: {"documents", "bytes"}}}, bytes of text.

    `progress(source, documents so far)` is called now and then. Raises InputError for anything wrong with a source.
    """
    corpus: Corpus = recipe.section("corpus")
    with whole_directory(out, {"kind": "corpus", "inputs": corpus_inputs(recipe)}) as folder:
        report = {name: _build_source(recipe, name, folder / name, progress) for name in corpus.sources}
        write_json(folder / "report.json", report)
    return report


def documents(corpus: Path, source: str, split: str) -> Iterator[Document]:
    """The documents of one split of a built corpus, in its order."""
    file = _file(corpus / source, split)
    if not file.is_file():
        known = ", ".join(sorted(folder.name for folder in corpus.glob("*") if folder.is_dir())) or "none"
        raise InputError(f"{file}: the corpus has no such split (sources there: {known}); build it again")
    for _, line in streams.lines(file):
        yield Document(**json.loads(line))


def text_share(text: str) -> float:
    """A number in [0, 1) that a text alone decides; those below `validation_fraction` are kept for validation."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"smelt split").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _reader_inputs(name: str, reader: Reader, seed: int) -> dict[str, Any]:
    match reader.kind:
        case "text" | "jsonl" | "parquet":
            with _naming(name):
                return {"files": [stamp(file) for file in matching(reader.path, reader.kind)]}
        case "hub":
            folder = Path(reader.id)
            files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
            return {"files": [stamp(file) for file in files]}
        case "python-docs" | "python-source":
            return {"python": platform.python_version()}
        case "arithmetic":
            return {"seed": seed, "version": arithmetic.VERSION}


@contextlib.contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the source's key before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"corpus.sources.{source}: {error}") from error


def _build_source(recipe: Recipe, name: str, folder: Path, progress: Progress | None) -> dict[str, dict[str, int]]:
    corpus: Corpus = recipe.section("corpus")
    with _naming(name):
        incoming = _whole(_counted(recipe, name, progress))
        counts = _write_splits(folder, incoming, lambda share: share < corpus.validation_fraction)
        if not any(count["documents"] for count in counts.values()):
            raise InputError("no document with any text in it; check its path, field and split, or remove the source")
        for empty, other in (SPLITS, SPLITS[::-1]):
            if not counts[empty]["documents"]:
                counts = _fill(folder, empty, other)
        return counts


def _counted(recipe: Recipe, name: str, progress: Progress | None) -> Iterator[Document]:
    source = recipe.section("corpus").sources[name]
    number = 0
    for number, document in enumerate(itertools.islice(read(source.read, name, recipe.seed), source.documents), 1):
        if progress and number % _REPORT_EVERY == 0:
            progress(name, number)
        yield document
    if progress:
        progress(name, number)


def _whole(incoming: Iterator[Document]) -> Iterator[Document]:
    """Documents with text, in which a lone surrogate (half a character, which JSON can carry) becomes U+FFFD."""
    for document in incoming:
        text = document.text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if text and not text.isspace():
            yield Document(text, document.id, document.source)


def _write_splits(
    folder: Path, incoming: Iterator[Document], validates: Callable[[float], bool]
) -> dict[str, dict[str, int]]:
    """Write each document to the split that `validates`, given its share, chooses; returns their counts."""
    counts = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
    with (
        streams.zstd_writer(_file(folder, "train")) as train,
        streams.zstd_writer(_file(folder, "validation")) as validation,
    ):
        for document in incoming:
            chosen = validates(text_share(document.text))
            counts[SPLITS[chosen]]["documents"] += 1
            counts[SPLITS[chosen]]["bytes"] += len(document.text.encode())
            row = {"text": document.text, "id": document.id, "source": document.source}
            print(json.dumps(row, ensure_ascii=False), file=validation if chosen else train)
    return counts


def _fill(folder: Path, empty: str, other: str) -> dict[str, dict[str, int]]:
    """Give the empty split of a small source one text (and its copies): the nearest to it by share."""
    shares = [text_share(document.text) for document in _all(folder, other)]
    edge = min(shares) if empty == "validation" else max(shares)
    if min(shares) == max(shares):
        raise InputError("only one text, and training and validation need one each; split it into several documents")
    whole = _file(folder, other)
    whole = whole.rename(whole.with_name("whole.jsonl.zst"))
    counts = _write_splits(folder, _all(folder, "whole"), lambda share: (share == edge) == (empty == "validation"))
    whole.unlink()
    return counts


def _all(folder: Path, split: str) -> Iterator[Document]:
    return documents(folder.parent, folder.name, split)


def _file(folder: Path, split: str) -> Path:
    return folder / f"{split}.jsonl.zst"
