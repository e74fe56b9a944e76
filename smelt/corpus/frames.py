"""The parts of a zstd file, so that it is unpacked one block at a time: a few bytes may stand for gigabytes of them.

Format: RFC 8878.
"""

from collections.abc import Iterator
from typing import BinaryIO

_MAGIC = b"\x28\xb5\x2f\xfd"
_CONTENT_SIZE = (0, 2, 4, 8)
_DICTIONARY = (0, 1, 2, 4)


def pieces(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Consecutive pieces of a zstd file of at most one block each (128 KiB of text), and whether a frame ends there.

    Raises EOFError for a file that ends inside a frame and ValueError for what is no zstd file.
    """
    while magic := file.read(4):
        if magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:
            _skip(file, int.from_bytes(_exactly(file, 4), "little"))
        elif magic == _MAGIC:
            yield from _frame(file)
        elif _MAGIC.startswith(magic):
            raise EOFError
        else:
            raise ValueError("unknown frame descriptor")


def _frame(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    descriptor = _exactly(file, 1)
    flags = descriptor[0]
    single, checksum = bool(flags & 0x20), bool(flags & 0x04)
    length = _CONTENT_SIZE[flags >> 6] or single
    yield _MAGIC + descriptor + _exactly(file, length + (not single) + _DICTIONARY[flags & 3]), False
    last = False
    while not last:
        header = _exactly(file, 3)
        number = int.from_bytes(header, "little")
        last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
        block = header + _exactly(file, 1 if kind == 1 else size)
        yield block, last and not checksum
    if checksum:
        yield _exactly(file, 4), True


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _skip(file: BinaryIO, size: int) -> None:
    while size:
        size -= len(_exactly(file, min(size, 1 << 16)))
