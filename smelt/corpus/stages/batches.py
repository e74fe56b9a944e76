"""Reads the rows of a part in batches, so that memory stays bounded however long documents are."""

from collections.abc import Iterator
from pathlib import Path

from smelt.corpus.document import Document
from smelt.corpus.splits import rows
from smelt.corpus.stages.folder import part_file

DOCUMENTS = 1_000
CHARACTERS = 4_000_000


def batches(folder: Path, number: int) -> Iterator[list[Document]]:
    """The documents of a part, in order: at most `DOCUMENTS` at once, fewer where they hold many `CHARACTERS`."""
    batch: list[Document] = []
    characters = 0
    for document in rows(part_file(folder, number, ".jsonl.zst")):
        batch.append(document)
        characters += len(document.text)
        if len(batch) == DOCUMENTS or characters >= CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
