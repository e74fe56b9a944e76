"""One table from a reader's kind to the functions that read it, in parts that can be read apart."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from smelt.corpus import arithmetic, chat, code, files, html, hub, parquet, python, rows, warc
from smelt.corpus.bad import Bad, Report, Unreadable, report
from smelt.corpus.document import Document
from smelt.recipe.sections.readers import Reader

__all__ = ["READERS", "Bad", "Kind", "Unreadable", "inputs", "parts", "read", "report"]


@dataclass(frozen=True)
class Kind:
    """How one kind of reader works: its parts, one part's documents, and what a fingerprint takes of its input."""

    parts: Callable[[Any], list[str]]
    read: Callable[[Any, str, int, str, Report | None], Iterator[Document]]
    inputs: Callable[[Any, int], dict[str, Any]]


def _whole(reader: Any) -> list[str]:
    return [""]


def _of_files(
    read: Callable[[Any, str, str, Report | None], Iterator[Document]],
    parts: Callable[[Any], list[str]] = files.parts,
    inputs: Callable[[Any, int], dict[str, Any]] = files.inputs,
) -> Kind:
    return Kind(parts, lambda reader, source, seed, part, bad: read(reader, source, part, bad), inputs)


def _python(reader: Any, seed: int) -> dict[str, Any]:
    return {"python": platform.python_version()}


READERS: dict[str, Kind] = {
    "text": _of_files(files.read_text, files.grouped),
    "jsonl": _of_files(rows.read_jsonl),
    "parquet": _of_files(parquet.read_parquet),
    "chat": _of_files(chat.read_chat),
    "html": _of_files(html.read_html, files.grouped),
    "warc": _of_files(warc.read_warc),
    "code": _of_files(code.read_code, code.parts, code.inputs),
    "hub": _of_files(hub.read_hub, hub.parts, hub.inputs),
    "python-docs": Kind(_whole, lambda reader, source, seed, part, bad: python.read_docs(source), _python),
    "python-source": Kind(_whole, lambda reader, source, seed, part, bad: python.read_source(source), _python),
    "arithmetic": Kind(
        _whole,
        lambda reader, source, seed, part, bad: arithmetic.read_arithmetic(reader, source, seed),
        lambda reader, seed: {"seed": seed, "version": arithmetic.VERSION},
    ),
}


def parts(reader: Reader) -> list[str]:
    """Names of what can be read apart, in the order in which `read` reads them; [""] for a reader that is one whole."""
    return READERS[reader.kind].parts(reader)


def read(
    reader: Reader, source: str, seed: int, part: str | None = None, bad: Report | None = None
) -> Iterator[Document]:
    """The documents of one part, or (None) of all, streamed in an order that is the same every time.

    What cannot be read is handed to `bad` and reading goes on; without `bad` it raises InputError.
    """
    kind = READERS[reader.kind]
    for each in kind.parts(reader) if part is None else [part]:
        yield from kind.read(reader, source, seed, each, bad)


def inputs(reader: Reader, seed: int) -> dict[str, Any]:
    """What a fingerprint takes of a reader's input, besides its section: stamps of its files."""
    return READERS[reader.kind].inputs(reader, seed)
