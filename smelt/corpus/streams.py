"""Bytes and lines of plain, gzip and zstd files in bounded memory, every truncated file an error."""

import contextlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from smelt.errors import InputError

_CHUNK = 1 << 16


def chunks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a file; `.gz` and `.zst` are known by their suffix."""
    unpack = {".gz": _gzip, ".zst": _zstd}.get(path.suffix, _plain)
    try:
        with path.open("rb") as file:
            yield from unpack(path, file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{path}: may not be read; change its permissions") from None


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and content of each line, line ends removed, blank lines skipped."""
    number, rest = 0, [b""]
    for chunk in chunks(path):
        first, *others = chunk.split(b"\n")
        rest.append(first)
        for other in others:
            number += 1
            yield from _line(number, b"".join(rest))
            rest = [other]
    yield from _line(number + 1, b"".join(rest))


def text(path: Path) -> str:
    """The whole file as UTF-8, a byte order mark removed."""
    try:
        return b"".join(chunks(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; convert it, or leave it out with a glob") from None


@contextlib.contextmanager
def zstd_writer(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text file to write to, compressed with zstd on the way."""
    import zstandard

    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as writer,
    ):
        yield writer


def _line(number: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    if number == 1:
        content = content.removeprefix(b"\xef\xbb\xbf")
    if content and not content.isspace():
        yield number, content.removesuffix(b"\r")


def _plain(path: Path, file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _gzip(path: Path, file: BinaryIO) -> Iterator[bytes]:
    import gzip

    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            while chunk := unpacked.read(_CHUNK):
                yield chunk
        if file.tell() == 0:
            raise EOFError
    except EOFError:
        raise _truncated(path) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, "gzip", error) from None


def _zstd(path: Path, file: BinaryIO) -> Iterator[bytes]:
    import zstandard

    frame = None
    while chunk := file.read(_CHUNK):
        while chunk:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise _damaged(path, "zstd", error) from None
            chunk = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None or file.tell() == 0:
        raise _truncated(path)


def _truncated(path: Path) -> InputError:
    return InputError(f"{path}: ends in the middle of its compressed data (truncated); copy or download it again")


def _damaged(path: Path, kind: str, error: Exception) -> InputError:
    return InputError(f"{path}: not valid {kind} data ({error}); copy or download it again")
