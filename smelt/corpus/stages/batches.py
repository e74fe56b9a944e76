"""Reads the rows of a part in batches."""

from collections.abc import Iterator
from pathlib import Path

from smelt.corpus.document import Document, batched
from smelt.corpus.splits import rows
from smelt.corpus.stages.folder import part_file


def batches(folder: Path, number: int) -> Iterator[list[Document]]:
    """The documents of a part, in order."""
    return batched(rows(part_file(folder, number, ".jsonl.zst")))
