"""Documents from web archives: the pages of WARC responses, and the text of WET files."""

import io
from collections.abc import Iterator
from typing import Any

from smelt.corpus import remote, streams
from smelt.corpus.bad import Report, Unreadable, report
from smelt.corpus.document import Document
from smelt.corpus.html import decoded, extractor
from smelt.corpus.rows import sound
from smelt.errors import InputError
from smelt.recipe.sections.readers import Warc

_MEND = "copy or download the file again"
_PAGES = ("text/html", "application/xhtml+xml", "text/plain")


def read_warc(reader: Warc, source: str, part: str, bad: Report | None) -> Iterator[Document]:
    """Each page one document, named by its record; its facts are `url` and `date`. A page may have no text.

    Other records (requests, images, errors and redirections of a server) are no documents, and not bad either.
    """
    extract = extractor(reader.favor)

    def made(place: str, record: Any) -> Document:
        kind, charset = _type(record)
        content = _content(record, place, reader.max_bytes + 1)
        if len(content) > reader.max_bytes:
            raise streams.too_long(place, reader.max_bytes, content)
        text = decoded(content, charset)
        if kind != "text/plain":
            text = extract(place, text)
        headers = record.rec_headers
        facts = {"url": headers.get_header("WARC-Target-URI"), "date": headers.get_header("WARC-Date")}
        name = (headers.get_header("WARC-Record-ID") or place).strip("<>")
        return Document(text, name, source, {key: value for key, value in facts.items() if value})

    return sound(_pages(part, bad), made, bad)


def _pages(part: str, bad: Report | None) -> Iterator[tuple[str, Any]]:
    try:
        from warcio.archiveiterator import WARCIterator
    except ImportError:
        raise InputError(
            "reading web archives needs warcio, which is not installed; run: pip install 'smelt[data]'"
        ) from None
    place, number, unpacked = remote.shown(part), 0, _Unpacked(part)
    try:
        for number, record in enumerate(WARCIterator(unpacked), 1):
            if _is_page(record):
                unpacked.pages += 1
                yield f"{place}:{number}", record
    except Unreadable as error:
        report(error, bad)
    except InputError:
        raise
    except Exception as error:  # a damaged record can break the library in many ways
        report(Unreadable(f"{place}:{number + 1}", "not a readable WARC record", _MEND, detail=str(error)), bad)
    else:
        if not number:
            report(streams.empty(place), bad)


def _content(record: Any, place: str, most: int) -> bytes:
    """At most the first `most` bytes of a record, as they were before the server packed them."""
    from warcio.bufferedreaders import BufferedReader

    coding = (record.http_headers.get_header("Content-Encoding") or "" if record.http_headers else "").strip().lower()
    if coding not in ("", "identity", *BufferedReader.get_supported_decompressors()):
        mend = "run: pip install brotli" if coding == "br" else "leave it out"
        raise Unreadable(place, f"a page packed as {coding[:20]}", mend)
    found, size = [], 0
    try:
        stream = record.content_stream()
        while size < most and (some := stream.read(most - size)):
            found.append(some)
            size += len(some)
    except InputError:
        raise
    except Exception as error:  # a body that is not packed as its header says
        raise Unreadable(place, "not a readable WARC record", _MEND, detail=str(error)) from None
    return b"".join(found)


def _is_page(record: Any) -> bool:
    kind, _ = _type(record)
    if record.rec_type == "conversion":
        return kind == "text/plain"
    served = record.rec_type == "response" and record.http_headers is not None
    return served and record.http_headers.get_statuscode() == "200" and kind in _PAGES


def _type(record: Any) -> tuple[str, str | None]:
    """Content type and declared encoding of what a record holds."""
    headers = record.http_headers if record.rec_type == "response" else record.rec_headers
    kind, _, rest = (headers.get_header("Content-Type") or "" if headers else "").lower().partition(";")
    charset = rest.partition("charset=")[2].split(";")[0].strip(" \"'")
    return kind.strip(), charset or None


class _Unpacked(io.RawIOBase):
    """A file's unpacked bytes as a stream. Damage weighs as many pages as the bytes after it would hold, going by the
    `pages` before it."""

    def __init__(self, part: str) -> None:
        self._place, self._chunks, self._rest = remote.shown(part), streams.chunks(part), b""
        self.pages = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._chunks, b"")
            except Unreadable as error:
                raise error.at(self._place, max(1, round(self.pages * error.left))) from None
            if not self._rest:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
