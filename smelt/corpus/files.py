"""Documents from files: plain text, JSON Lines and Parquet, named by a file, a folder or a glob."""

import glob
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smelt.corpus import streams
from smelt.corpus.document import Document
from smelt.errors import InputError
from smelt.recipe.sections.corpus import JsonLines, Parquet, TextFiles

_SUFFIXES = {"text": None, "jsonl": (".jsonl", ".ndjson", ".json"), "parquet": (".parquet",)}
_PACKED = (".gz", ".zst")
_ROWS_AT_ONCE = 256


def matching(path: str, kind: str) -> list[Path]:
    """The files that `path` means to a reader of `kind`, sorted by path; InputError when there is none.

    A folder is searched recursively for files of that kind (for text: every file that is not hidden).
    """
    path = os.path.expanduser(path)
    if Path(path).is_dir():
        found = [file for file in Path(path).rglob("*") if file.is_file() and _wanted(file.relative_to(path), kind)]
        if not found:
            known = ", ".join(_SUFFIXES[kind] or ("any file",))
            raise InputError(f"{path}: no {kind} files in this folder (looked for {known}); name another path")
    elif Path(path).exists():
        found = [Path(path)]
    else:
        found = [Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file()]
        if not found:
            reason = "matches no file" if glob.has_magic(path) else "no such file or folder"
            raise InputError(f"{path}: {reason}; check the path")
    return sorted(found, key=lambda file: file.as_posix())


def read_text(reader: TextFiles, source: str) -> Iterator[Document]:
    """Each file one document, named by its path."""
    for file in matching(reader.path, "text"):
        yield Document(streams.text(file), file.as_posix(), source)


def read_jsonl(reader: JsonLines, source: str) -> Iterator[Document]:
    """Each line one document, named by the row's `id`, or else by file and line."""
    for file in matching(reader.path, "jsonl"):
        for number, line in streams.lines(file):
            place = f"{file}:{number}"
            yield document(_row(line, place), reader.field, place, source)


def read_parquet(reader: Parquet, source: str) -> Iterator[Document]:
    """Each row one document, named by the row's `id`, or else by file and row."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "reading parquet needs pyarrow, which is not installed; run: pip install 'smelt[data]'"
        ) from None
    for file in matching(reader.path, "parquet"):
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                names = table.schema_arrow.names
                _check_field(reader.field, names, str(file))
                columns = [name for name in ("id", reader.field) if name in names]
                number = 0
                for batch in table.iter_batches(_ROWS_AT_ONCE, columns=columns):
                    for row in batch.to_pylist():
                        number += 1
                        yield document(row, reader.field, f"{file}:{number}", source)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{file}: not a readable Parquet file ({reason}); copy or download it again") from None


def document(row: Mapping[str, Any], field: str, place: str, source: str) -> Document:
    """A row as a document; `place` (file and line) is its name where the row has no `id`. Null text is empty text."""
    _check_field(field, row, place)
    text = row[field]
    if not isinstance(text, str | None):
        raise InputError(f"{place}: field '{field}' holds {type(text).__name__}, not text; name a field of text")
    name = row.get("id")
    return Document(text or "", str(name) if isinstance(name, str | int) else place, source)


def _wanted(file: Path, kind: str) -> bool:
    suffixes = _SUFFIXES[kind]
    if any(part.startswith(".") for part in file.parts):
        return False
    packed = kind != "parquet" and file.suffix in _PACKED
    return suffixes is None or (file.with_suffix("") if packed else file).suffix in suffixes


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON ({error}); mend or remove this line") from None
    if not isinstance(row, dict):
        raise InputError(f'{place}: expected an object such as {{"text": ...}}, found {type(row).__name__}; mend it')
    return row


def _check_field(field: str, fields: Any, place: str) -> None:
    if field not in fields:
        there = ", ".join(map(str, fields)) or "none"
        raise InputError(f"{place}: has no field '{field}' (fields there: {there}); set read.field to one of them")
