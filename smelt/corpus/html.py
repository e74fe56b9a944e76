"""The text of web pages: bytes in whatever encoding -> characters -> the main text, by trafilatura."""

import codecs
import re
from collections.abc import Iterator
from typing import Any, Literal

from smelt.corpus import streams
from smelt.corpus.bad import Report, Unreadable
from smelt.corpus.document import Document
from smelt.corpus.files import read_each
from smelt.errors import InputError
from smelt.recipe.sections.readers import Html

Favor = Literal["precision", "balance", "recall"]
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.+-]{2,40})""", re.IGNORECASE)
_META_WITHIN = 4096
# These look like ASCII or UTF-8 byte by byte, so what the page says of itself comes first.
_SEVEN_BITS = ("iso2022", "hz", "utf_16", "utf_32")
# Python knows more codecs than pages have a use for: some decode no text at all, some take time beyond measure.
_OF_PAGES = re.compile(
    r"utf[-_](8|16|16[-_][bl]e|32)|ascii|iso8859[-_]\d+|iso2022[-_]\w+|cp\d+|koi8[-_]\w|(shift|euc)[-_]\w+|gbk|gb2312"
    r"|gb18030|big5(hkscs)?|hz|johab|tis[-_]620|mac[-_]\w+|viscii|kz1048|ptcp154",
    re.ASCII,
)
_AS_BROWSERS_READ = {
    "ascii": "cp1252",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
}
_OTHER_NAMES = {"windows-874": "cp874", "x-mac-cyrillic": "mac_cyrillic", "x-sjis": "shift_jis", "x-gbk": "gbk"}


def read_html(reader: Html, source: str, part: str, bad: Report | None) -> Iterator[Document]:
    """The main text of each page, named by its path; empty where a page has none."""
    extract = extractor(reader.favor)

    def made(name: str, file: str) -> Document:
        content = streams.content(file, reader.max_bytes)
        if not content:
            raise streams.empty(name)
        return Document(extract(name, decoded(content)), name, source, {"path": name})

    return read_each(reader, part, made, bad)


def decoded(content: bytes, declared: str | None = None) -> str:
    """A page's characters: by its byte order mark, else as UTF-8 where it is that, else as declared in `declared` (of
    the HTTP header) or in the page, else by its statistics. What is no character in that encoding is U+FFFD."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return content.decode(name, "replace")
    meta = _META.search(content[:_META_WITHIN])
    named = [_known(name) for name in (declared, meta[1].decode() if meta else None) if name]
    names = [name for name in named if name]
    first = [name for name in names if name.replace("-", "_").startswith(_SEVEN_BITS) and b"\x1b" in content]
    for name in (*first, "utf-8", *names):
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            pass
    return content.decode(names[0] if names else _likely(content), "replace")


def extractor(favor: Favor) -> Any:
    """The function (place, page) -> main text; it raises Unreadable where the extraction fails."""
    try:
        import trafilatura
    except ImportError as error:
        raise InputError(f"reading web pages needs trafilatura ({error}); run: pip install 'smelt[data]'") from None

    def extract(place: str, page: str) -> str:
        if not page.strip():
            return ""
        try:
            found = trafilatura.extract(
                page,
                include_comments=False,
                favor_precision=favor == "precision",
                favor_recall=favor == "recall",
            )
        except Exception as error:  # a page can break an HTML library in many ways
            raise Unreadable(
                place, "text cannot be extracted", "leave it out", detail=str(error), excerpt=page[:1000]
            ) from None
        return found or ""

    return extract


def _known(name: str) -> str | None:
    try:
        found = codecs.lookup(_OTHER_NAMES.get(name.lower(), name)).name
    except (LookupError, ValueError):
        return None
    return _AS_BROWSERS_READ.get(found, found) if _OF_PAGES.fullmatch(found) else None


def _likely(content: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(content[: 1 << 16]).best()
    return best.encoding if best else "cp1252"
