"""Writing and naming files so that a crash never leaves half of one: atomic writes, manifests, fingerprints."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smelt.errors import InputError

MANIFEST = "manifest.json"


def fingerprint(value: Any) -> str:
    """16 hex digits that identify a JSON-serialisable value, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> list[Any]:
    """Name, size and modification time of a file: what a fingerprint takes of a user's input too large to hash."""
    facts = path.stat()
    return [path.as_posix(), facts.st_size, facts.st_mtime_ns]


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary file in the same folder, fsync, rename."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file; InputError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); restore it or build it again") from None


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk under `path` into an InputError that says so."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _os_error(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: the disk is full; free some space and run the same command again") from error
        if number in (errno.EROFS, errno.EACCES):
            raise InputError(f"{path}: cannot be written ({os.strerror(number)}); choose a writable folder") from error
        raise


def _os_error(error: Exception) -> int | None:
    """The errno that a library written in Rust puts into its message, as in `... (os error 28)`."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextlib.contextmanager
def whole_directory(path: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """Build a directory that appears at `path` complete or not at all.

    Yields a temporary sibling to fill. On success every file in it is hashed into `manifest.json` (written last,
    beside the given entries), everything is synced and the directory renamed; on any error it is removed.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with disk_errors(path):
            os.chmod(temporary, 0o755)
            yield temporary
            files = sorted(file for file in temporary.rglob("*") if file.is_file())
            entries = {
                str(file.relative_to(temporary)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
                for file in files
            }
            for file in files:
                file.chmod(0o644)
                sync(file)
            write_json(temporary / MANIFEST, {**manifest, "files": entries})
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def replaceable(path: Path, kind: str, word: str) -> None:
    """InputError unless nothing is at `path`, or an empty folder, or one whose manifest says that it is of this `kind`,
    which a message calls a `word` model."""
    empty = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    ours = (path / MANIFEST).is_file() and read_json(path / MANIFEST).get("kind") == kind
    if not (empty or ours):
        raise InputError(f"{path}: exists and is no {word} model; choose another folder or empty it")


def check_directory(path: Path, contents: bool = True, share: slice = slice(None)) -> dict[str, Any]:
    """The manifest of a directory made by `whole_directory`, after checking every file's size (and hash), or those of a
    `share` of the files.

    Raises InputError naming the first file that is missing, truncated or changed.
    """
    if not (path / MANIFEST).is_file():
        raise InputError(f"{path}: has no {MANIFEST}, so it was never finished; build it again")
    manifest: dict[str, Any] = read_json(path / MANIFEST)
    for name, entry in list(manifest["files"].items())[share]:
        file = path / name
        if not file.is_file():
            raise InputError(f"{file}: missing although {MANIFEST} lists it; build it again")
        if file.stat().st_size != entry["bytes"]:
            raise InputError(
                f"{file}: {file.stat().st_size} bytes where {MANIFEST} says {entry['bytes']} (truncated?); "
                "remove the folder and build it again"
            )
        if contents and sha256(file) != entry["sha256"]:
            raise InputError(f"{file}: its contents differ from {MANIFEST}; remove the folder and build it again")
    return manifest


def sync(path: Path) -> None:
    """Make the contents of a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
