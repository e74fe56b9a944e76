"""Which files a reader's path means, here or behind a URL, how they are grouped into parts, and plain text files."""

import contextlib
import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

from smelt.corpus import groups, remote, streams
from smelt.corpus.bad import Report, written
from smelt.corpus.document import Document
from smelt.corpus.rows import sound
from smelt.errors import InputError
from smelt.files import stamp
from smelt.recipe.sections.readers import TextFiles

_JSON = (".jsonl", ".ndjson", ".json")
_SUFFIXES: dict[str, tuple[str, ...] | None] = {
    "text": None,
    "code": None,
    "jsonl": _JSON,
    "chat": _JSON,
    "parquet": (".parquet",),
    "warc": (".warc", ".wet"),
    "html": (".html", ".htm", ".xhtml"),
}
_PACKED = (".gz", ".zst")
Kept = Callable[[str], bool]


def matching(path: str, kind: str) -> list[Path]:
    """The files here that `path` means to a reader of `kind`, sorted by path; InputError when there is none.

    A folder is searched recursively for files of that kind (for text: every file that is not hidden).
    """
    with _permitted():
        return [Path(name) for name in _here(path, kind)]


def listed(path: str, kind: str, kept: Kept = lambda name: True) -> dict[str, list[Any]]:
    """Name -> [name, size, when it changed] of every file that `path`, a path or a URL, means; InputError for none.

    Only files whose names are `kept` are looked at more closely.
    """
    if remote.is_remote(path):
        found = remote.listing(path, lambda file: not _hidden(file) and _of_kind(file.name, kind))
        return {name: facts for name, facts in found.items() if kept(name)}
    with _permitted():
        return {name: [written(name), *stamp(Path(name))[1:]] for name in _here(path, kind) if kept(name)}


def inputs(reader: Any, seed: int) -> dict[str, Any]:
    """What a fingerprint takes of a reader's files."""
    return {"files": list(listed(reader.path, reader.kind).values())}


def parts(reader: Any) -> list[str]:
    """The files of a reader, sorted."""
    return list(listed(reader.path, reader.kind))


def grouped(reader: Any) -> list[str]:
    """Parts of a reader of many small files: groups of neighbours, each named by its first file."""
    return groups.names(reader, _listed)


def read_each(reader: Any, part: str, made: Callable[[str, str], Document], bad: Report | None) -> Iterator[Document]:
    """The documents that `made` makes of each file of a part, given its name to show and its name to read."""
    return sound(((remote.shown(file), file) for file in groups.members(reader, _listed, part)), made, bad)


def read_text(reader: TextFiles, source: str, part: str, bad: Report | None) -> Iterator[Document]:
    """Each file one document, named by its path."""

    def made(name: str, file: str) -> Document:
        text = streams.text(file, reader.max_bytes)
        if not text:
            raise streams.empty(name)
        return Document(text, name, source)

    return read_each(reader, part, made, bad)


def _listed(reader: Any) -> dict[str, list[Any]]:
    return listed(reader.path, reader.kind)


@contextlib.contextmanager
def _permitted() -> Iterator[None]:
    """Name what may not be read in an InputError."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{error.filename}: may not be read; change its permissions, or name another path") from None


def _here(path: str, kind: str) -> list[str]:
    path = Path(os.path.expanduser(path)).as_posix()
    if os.path.isdir(path):
        found = [name.removeprefix("./") for name in _inside(path) if _of_kind(name, kind)]
        if not found:
            raise InputError(f"{path}: no {kind} files in this folder (looked for {_looked(kind)}); name another path")
    elif os.path.exists(path):
        found = [path]
    else:
        found = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
        if not found:
            reason = "matches no file" if glob.has_magic(path) else "no such file or folder"
            raise InputError(f"{path}: {reason}; check the path")
    return sorted(found)


def _inside(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _inside(entry.path)
            elif entry.is_file():
                yield entry.path


def _hidden(file: PurePath) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _of_kind(name: str, kind: str) -> bool:
    suffixes = _SUFFIXES[kind]
    if suffixes is None:
        return True
    stem, suffix = os.path.splitext(name)
    return (os.path.splitext(stem)[1] if kind != "parquet" and suffix in _PACKED else suffix) in suffixes


def _looked(kind: str) -> str:
    return ", ".join(_SUFFIXES[kind] or ("any file",))
