"""What every reader yields and every later room reads: one text with a name."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

DOCUMENTS = 1024
CHARACTERS = 4_000_000


@dataclass(frozen=True, slots=True)
class Document:
    """`id` is unique within `source` as far as the reader can tell; `text` may be empty; `facts` are what a reader
    knows besides (`url`, `path`, `language`), JSON-serialisable."""

    text: str
    id: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def batched(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents in order, `DOCUMENTS` at once, or as many as bring a batch to `CHARACTERS`."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == DOCUMENTS or characters >= CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
