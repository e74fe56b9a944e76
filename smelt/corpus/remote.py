"""Files behind a URL (`s3://`, `gs://`, `hf://`, `https://`...), through fsspec: listed, and read so that a connection
that breaks goes on at its byte."""

import io
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from smelt.corpus.bad import written
from smelt.errors import InputError

T = TypeVar("T")
_ATTEMPTS = 8  # without a byte in between
_FIRST_WAIT = 0.2  # seconds, doubled each time
_LEAST, _MOST = 1 << 16, 1 << 23  # bytes a request
_TAGS = ("ETag", "etag", "md5Hash", "blob_id", "generation", "mtime", "LastModified", "last_modified", "created")
_NOT_THERE = (FileNotFoundError, PermissionError, IsADirectoryError)


def is_remote(name: str) -> bool:
    """Whether a name is a URL rather than a path."""
    return "://" in name


def shown(name: str) -> str:
    """A name fit for ids and messages: a web address without user, password and query, which may hold secrets."""
    if not name.startswith(("http://", "https://")):
        return written(name)
    address = urlsplit(name)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def listing(url: str, wanted: Callable[[PurePosixPath], bool]) -> dict[str, list[Any]]:
    """URL -> [name, size, tag] of each file that a URL (of a file, a folder or a glob) means, sorted.

    The tag is whatever tells that a file changed. In folders, files that are not `wanted` are left out. A web address
    always means one file. Raises InputError when there is none, or the place cannot be reached.
    """
    files, path = _filesystem(url)
    place = shown(url)
    with _Reaching(place):
        if url.startswith(("http://", "https://")):
            found = {url: files.info(path)}
        elif any(letter in path for letter in "*?["):
            found = files.glob(path, detail=True)
        elif files.isdir(path):
            inside = files.find(path, detail=True)
            found = {name: facts for name, facts in inside.items() if wanted(_relative(name, path))}
        else:
            found = {path: files.info(path)}
    found = {name: facts for name, facts in found.items() if facts.get("type") != "directory"}
    if not found:
        raise InputError(f"{place}: no such file there; check the URL")
    named = {name if is_remote(name) else files.unstrip_protocol(name): facts for name, facts in found.items()}
    return {name: [shown(name), facts.get("size"), _tag(facts)] for name, facts in sorted(named.items())}


def opened(url: str) -> BinaryIO:
    """The bytes of a file, buffered.

    Raises InputError when the connection keeps breaking, or on `seek` when the server sends whole files only;
    FileNotFoundError and PermissionError as they are.
    """
    return io.BufferedReader(_RemoteFile(url), _LEAST)


class _RemoteFile(io.RawIOBase):
    """Reads by requests of a few MB each; one that fails is made again from the byte it began with, and smaller."""

    def __init__(self, url: str) -> None:
        self._files, self._path = _filesystem(url)
        self._place = shown(url)
        self._position = self._good = 0
        self._most, self._streams = _MOST, False
        self._handle: Any = None
        self._start, self._block = 0, b""
        facts = self._patiently(lambda: self._files.info(self._path))
        self._size, self._tag = facts.get("size"), _tag(facts)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._streams or self._size is None:
            raise InputError(f"{self._place}: is read in parts, but its server sends whole files only; download it")
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        if not self._start <= self._position < self._start + len(self._block):
            self._start = self._position
            self._block = self._patiently(self._request)
        begin = self._position - self._start
        content = self._block[begin : begin + len(buffer)]
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._leave()
        super().close()

    def _request(self) -> bytes:
        """The next bytes at the position; none at the end of the file."""
        wanted = self._most if self._size is None else min(self._most, self._size - self._position)
        if wanted <= 0:
            return b""
        try:
            handle = self._handle or self._open()
            if not self._streams:
                handle.seek(self._position)
            content: bytes = handle.read(wanted)
        except Exception:
            self._most, self._good = max(_LEAST, wanted // 2), 0
            raise
        if not content and self._size is not None:
            raise ConnectionError(f"ended at byte {self._position} of {self._size}")
        self._good += 1
        if self._good % 8 == 0:
            self._most = min(_MOST, 2 * self._most)
        return content

    def _open(self) -> Any:
        handle = self._files.open(self._path, "rb", cache_type="none", **({"block_size": 0} if self._streams else {}))
        self._streams = self._streams or not _has_parts(handle)
        self._handle = handle
        passed = 0
        while self._streams and passed < self._position:
            content = handle.read(min(_MOST, self._position - passed))
            if not content:
                raise ConnectionError(f"ended at byte {passed}")
            passed += len(content)
        return handle

    def _leave(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _patiently(self, action: Callable[[], T]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                return action()
            except _NOT_THERE:
                raise
            except Exception as error:  # each filesystem raises its own
                self._leave()
                if isinstance(error, ValueError) and "range requests" in str(error):
                    self._streams = True
                if attempt == _ATTEMPTS - 1:
                    raise InputError(
                        f"{self._place}: cannot be read at byte {self._position} ({_line(error)}); check the "
                        "connection and the credentials, and run the same command again"
                    ) from error
                time.sleep(_FIRST_WAIT * 2**attempt)
                self._check_same()
        raise AssertionError

    def _check_same(self) -> None:
        """The rest of another file must not follow the beginning of this one."""
        if not self._position:
            return
        self._files.invalidate_cache()
        try:
            facts = self._files.info(self._path)
        except Exception:  # still away: the next attempt tells
            return
        if (facts.get("size"), _tag(facts)) != (self._size, self._tag):
            raise InputError(f"{self._place}: changed while it was read; run the same command again")


class _Reaching:
    """Turns whatever a filesystem raises into one line."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{self._place}: no such file there; check the URL") from None
        if isinstance(error, Exception):
            raise InputError(
                f"{self._place}: cannot be reached ({_line(error)}); check the URL, the connection and the credentials"
            ) from error


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InputError(
            f"{shown(url)}: reading URLs needs fsspec, which is not installed; run: pip install 'smelt[remote]'"
        ) from None
    plain = {"headers": {"Accept-Encoding": "identity"}} if url.startswith(("http://", "https://")) else {}
    try:
        files, path = url_to_fs(url, **plain)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{shown(url)}: cannot be used ({_line(error)}); give a path or a URL such as s3://bucket/folder, "
            "and run: pip install 'smelt[remote]'"
        ) from None
    return files, path


def _has_parts(handle: Any) -> bool:
    """Whether parts of a file can be had; a handle of a server's plain stream refuses to go anywhere."""
    try:
        handle.seek(1)
        handle.seek(0)
    except (ValueError, OSError):
        return False
    return True


def _relative(name: str, folder: str) -> PurePosixPath:
    return PurePosixPath(name[len(folder) :].lstrip("/") if name.startswith(folder) else name)


def _tag(facts: dict[str, Any]) -> str | None:
    return next((str(facts[name]) for name in _TAGS if facts.get(name)), None)


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
