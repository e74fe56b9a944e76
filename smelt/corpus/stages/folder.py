"""A stage's folder: the files of each part, a mark of JSON for each part that is done, and a manifest once all are.

The folder is named by a fingerprint of everything that its contents depend on, so a later build finds it again.
"""

import contextlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smelt.files import MANIFEST, check_directory, disk_errors, fingerprint, read_json, sync, write_json

LAYOUT = 2  # of a stage's folder


@dataclass(frozen=True)
class Folder:
    """`root`/KIND/FINGERPRINT, where `inputs` are what it is made from."""

    root: Path
    kind: str
    inputs: Any

    @cached_property
    def key(self) -> str:
        """The fingerprint of its inputs."""
        return fingerprint([LAYOUT, self.kind, self.inputs])

    @cached_property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / self.kind / self.key

    @property
    def finished(self) -> bool:
        """Whether every part is there; InputError where one of its files is missing or truncated."""
        if not (self.path / MANIFEST).is_file():
            return False
        check_directory(self.path, contents=False)
        return True

    def forget_others(self, parts: Sequence[str]) -> None:
        """Remove the marks of parts of other names: a source whose files are not known beforehand may have changed."""
        for number, part in enumerate(parts):
            done = mark(self.path, number)
            if done.is_file() and read_json(done)["part"] != part:
                done.unlink(missing_ok=True)

    def adopt(self, keys: Sequence[str | None]) -> None:
        """Take over the parts with these keys that other folders of the kind have, as hard links.

        A part's key stands for all that its files depend on; None is a part that cannot be told from others.
        """
        for part, key in enumerate(keys):
            record = self._record(key)
            if key and record.is_file() and not mark(self.path, part).is_file():
                name, number = read_json(record)
                _link(self.root / self.kind / name, number, self.path, part)

    def keys(self) -> list[str | None]:
        """Those that the parts of a finished folder have."""
        found: list[str | None] = read_json(self.path / MANIFEST)["keys"]
        return found

    def finish(self, parts: int, keys: Sequence[str | None] | None = None) -> None:
        """Write the manifest, last: the folder is whole from now on, and others may take over its parts."""
        for left in self.path.glob(".*"):  # by tasks that were killed; one of another build can do without
            if not left.name.startswith(f".{MANIFEST}"):  # of another build that finishes too
                left.unlink(missing_ok=True)
        there = sorted(file for file in self.path.iterdir() if not file.name.startswith("."))
        files = {file.name: {"bytes": file.stat().st_size} for file in there if file.name != MANIFEST}
        marks = [read_json(mark(self.path, part)) for part in range(parts)]
        keys = list(keys or [None] * parts)
        told = {"kind": self.kind, "inputs": self.inputs, "keys": keys, "marks": marks, "files": files}
        write_json(self.path / MANIFEST, told)
        for part, key in enumerate(keys):
            if key:
                write_json(self._record(key), [self.key, part])

    def marks(self) -> list[dict[str, Any]]:
        """What the parts of a finished folder counted, in order."""
        found: list[dict[str, Any]] = read_json(self.path / MANIFEST)["marks"]
        return found

    def _record(self, key: str | None) -> Path:
        return self.root / self.kind / "parts" / str(key)


def _link(source: Path, number: int, folder: Path, part: int) -> None:
    """Link a part's files under another number, its mark last; nothing where they are not all there any more."""
    files = sorted(source.glob(f"{number:05d}.*"), key=lambda file: file == mark(source, number))
    if not (source / MANIFEST).is_file() or mark(source, number) not in files:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        with whole_file(folder / f"{part:05d}{file.name[5:]}") as temporary:
            try:
                os.link(file, temporary)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, temporary)


def part_file(folder: Path, part: int, suffix: str) -> Path:
    """A file of one part."""
    return folder / f"{part:05d}{suffix}"


def mark(folder: Path, part: int) -> Path:
    """The file that says that a part is done, with what was counted."""
    return part_file(folder, part, ".json")


def write_mark(folder: Path, part: int, counts: Any) -> None:
    """Say that a part is done, once its files are written."""
    with whole_file(mark(folder, part)) as temporary:
        temporary.write_text(json.dumps(counts, indent=2, ensure_ascii=False), encoding="utf-8")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write under another name, which takes its own once it is whole; nothing is left after an error.

    Open it once only: another build that does the same may finish first, and remove it under way.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            yield temporary
            try:
                sync(temporary)
                os.replace(temporary, path)
            except FileNotFoundError:
                if not path.is_file():  # another build has written it, and cleaned up
                    raise
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def new_table(path: Path, shape: tuple[int, int], order: Literal["C", "F"] = "C") -> NDArray[np.uint64]:
    """A new file of an array to fill, mapped. Its space is reserved, as a disk that is full later ends the process."""
    with path.open("w+b") as file:
        header = {"descr": "<u8", "fortran_order": order == "F", "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, start + 8 * math.prod(shape))
        return np.memmap(file, np.uint64, "r+", start, shape, order)


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write a whole JSON Lines file."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def read_rows(path: Path) -> list[Any]:
    """The rows of a JSON Lines file, or none where it is missing."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(row) for row in file]
