"""Bytes and lines of plain, gzip and zstd files, in bounded memory, every truncated file an error.

A file is named by its path or its URL.
"""

import contextlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from smelt.corpus import remote
from smelt.corpus.bad import Report, Unreadable, report
from smelt.corpus.frames import pieces
from smelt.errors import InputError

_CHUNK = 1 << 16
_UNPACKED = 1 << 20
_MEND = "copy or download it again"


def chunks(path: Path | str) -> Iterator[bytes]:
    """The decompressed bytes of a file, about 1 MiB at a time at most; `.gz` and `.zst` are known by their suffix.

    Raises Unreadable after what could be unpacked of a truncated or damaged file.
    """
    unpack = {".gz": _gzip, ".zst": _zstd}.get(Path(remote.shown(str(path))).suffix, _plain)
    with opened(path) as file:
        try:
            yield from unpack(remote.shown(str(path)), file)
        except Unreadable as error:
            error.left = _left(file)
            raise


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """The bytes of a file as they are stored; InputError where it is not there."""
    place = remote.shown(str(path))
    try:
        with remote.opened(str(path)) if remote.is_remote(str(path)) else Path(path).open("rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{place}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{place}: may not be read; change its permissions, or check the credentials") from None


def lines(path: Path | str, longest: int | None = None, bad: Report | None = None) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and content of each line, line ends removed, blank lines skipped.

    A line of more than `longest` bytes is bad, and never held whole; so is the end of a truncated or damaged file.
    """
    number, rest, size = 0, [b""], 0
    try:
        for chunk in chunks(path):
            first, *others = chunk.split(b"\n")
            size += len(first)
            if longest is None or size - len(first) <= longest:
                rest.append(first)
            for other in others:
                number += 1
                yield from _line(path, number, rest, size, longest, bad)
                rest, size = [other], len(other)
    except Unreadable as error:
        lost = max(1, round(number * error.left))  # as many in a byte as before
        report(error.at(f"{remote.shown(str(path))}:{number + 1}", lost), bad)
        return
    yield from _line(path, number + 1, rest, size, longest, bad)


def text(path: Path | str, longest: int | None = None) -> str:
    """The whole file as UTF-8, a byte order mark removed; Unreadable for more than `longest` bytes, or none."""
    place, found = remote.shown(str(path)), content(path, longest)
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(place, error) from None


def content(path: Path | str, longest: int | None = None, rows: int = 1) -> bytes:
    """The whole file, unpacked; Unreadable, worth `rows` rows, for more than `longest` bytes."""
    found, size = [], 0
    for chunk in chunks(path):
        found.append(chunk)
        size += len(chunk)
        if longest is not None and size > longest:
            raise too_long(remote.shown(str(path)), longest, b"".join(found[:4]), rows)
    return b"".join(found)


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


def too_long(place: str, longest: int, excerpt: bytes = b"", rows: int = 1) -> Unreadable:
    """The error for a row or file of more bytes than allowed."""
    mend = "leave it out, or raise read.max_bytes"
    return Unreadable(place, f"longer than {longest:,} bytes", mend, excerpt=excerpt, rows=rows)


def empty(place: str) -> Unreadable:
    """The error for a file that holds nothing."""
    return Unreadable(place, "empty file", "remove it, or copy it again")


def not_utf8(place: str, error: UnicodeDecodeError) -> Unreadable:
    """The error for bytes that are no text."""
    excerpt = error.object[max(0, error.start - 40) : error.start + 40]
    return Unreadable(
        place, "not UTF-8", "convert it, or leave it out", detail=f"at byte {error.start}", excerpt=excerpt
    )


def _line(
    path: Path | str, number: int, parts: list[bytes], size: int, longest: int | None, bad: Report | None
) -> Iterator[tuple[int, bytes]]:
    if longest is not None and size > longest:
        report(too_long(f"{remote.shown(str(path))}:{number}", longest, b"".join(parts[:4])), bad)
        return
    content = b"".join(parts)
    if number == 1:
        content = content.removeprefix(b"\xef\xbb\xbf")
    if content and not content.isspace():
        yield number, content.removesuffix(b"\r")


def _plain(place: str, file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _gzip(place: str, file: BinaryIO) -> Iterator[bytes]:
    member, began = None, False
    while packed := file.read(_CHUNK):
        while packed:
            if member is None:
                packed = packed.lstrip(b"\0") if began else packed  # some writers pad with zeros
                if not packed:
                    break
                member, began = zlib.decompressobj(wbits=31), True
            yield _inflated(place, member, packed)
            packed = member.unused_data if member.eof else member.unconsumed_tail
            member = None if member.eof else member
    while member is not None and (rest := _inflated(place, member, b"")):
        yield rest
    if not began or (member is not None and not member.eof):
        raise _truncated(place)


def _inflated(place: str, member: Any, packed: bytes) -> bytes:
    try:
        content: bytes = member.decompress(packed, _UNPACKED)
    except zlib.error as error:
        raise _damaged(place, "gzip", error) from None
    return content


def _zstd(place: str, file: BinaryIO) -> Iterator[bytes]:
    import zstandard

    frame, began = None, False
    try:
        for piece, last in pieces(file):
            frame, began = frame or zstandard.ZstdDecompressor().decompressobj(), True
            yield frame.decompress(piece)
            frame = None if last else frame
    except EOFError:
        raise _truncated(place) from None
    except (zstandard.ZstdError, ValueError) as error:
        raise _damaged(place, "zstd", error) from None
    if not began:
        raise _truncated(place)


def _left(file: BinaryIO) -> float:
    try:
        read = file.tell()
        return (file.seek(0, io.SEEK_END) - read) / max(1, read)
    except InputError:  # from a server that sends whole files only
        return 0.0


def _truncated(place: str) -> Unreadable:
    return Unreadable(place, "ends in the middle of its compressed data (truncated)", _MEND)


def _damaged(place: str, kind: str, error: Exception) -> Unreadable:
    return Unreadable(place, f"not valid {kind} data", _MEND, detail=str(error))
