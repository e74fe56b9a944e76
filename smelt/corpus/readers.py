"""One table from a reader's kind to the function that reads it."""

from collections.abc import Callable, Iterator
from typing import Any

from smelt.corpus import arithmetic, files, hub, python
from smelt.corpus.document import Document
from smelt.recipe.sections.corpus import Reader

READERS: dict[str, Callable[[Any, str, int], Iterator[Document]]] = {
    "text": lambda reader, source, seed: files.read_text(reader, source),
    "jsonl": lambda reader, source, seed: files.read_jsonl(reader, source),
    "parquet": lambda reader, source, seed: files.read_parquet(reader, source),
    "hub": lambda reader, source, seed: hub.read_hub(reader, source),
    "python-docs": lambda reader, source, seed: python.read_docs(source),
    "python-source": lambda reader, source, seed: python.read_source(source),
    "arithmetic": arithmetic.read_arithmetic,
}


def read(reader: Reader, source: str, seed: int) -> Iterator[Document]:
    """All documents of a reader, streamed in an order that is the same every time; InputError for bad input."""
    return READERS[reader.kind](reader, source, seed)
