"""Rows as documents, each bad one reported by its place: JSON Lines, and what every reader of rows shares."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from smelt.corpus import remote, streams
from smelt.corpus.bad import Bad, Report, Unreadable, report, written
from smelt.corpus.document import Document
from smelt.corpus.seen import Seen
from smelt.recipe.sections.readers import JsonLines

T = TypeVar("T")
FACTS = ("url", "path", "language", "license", "date")  # what is kept of a row besides its text


def read_jsonl(reader: JsonLines, source: str, part: str, bad: Report | None) -> Iterator[Document]:
    """Each line one document, named by the row's id, or else by file and line."""
    return sound(
        numbered(part, reader.max_bytes, bad),
        lambda place, line: document(json_row(place, line), reader.field, place, source, reader.id_field),
        bad,
    )


def sound(rows: Iterable[tuple[str, T]], made: Callable[[str, T], Document], bad: Report | None) -> Iterator[Document]:
    """Documents made of rows, each given with its place; one that is Unreadable, or whose id came before, is bad."""
    seen = Seen()
    for place, row in rows:
        try:
            found = made(place, row)
            if found.id != place and not seen.add(found.id):
                raise Unreadable(
                    place,
                    "an id that came before",
                    "mend it, or name rows by another field, or by file and line, with read.id_field",
                    detail=found.id,
                    excerpt=found.text,
                )
        except Unreadable as error:
            report(error, bad)
        else:
            yield found


def numbered(part: str, longest: int, bad: Report | None) -> Iterator[tuple[str, bytes]]:
    """Place (file and line) and content of each line of a file, packed or not; a file without any is bad."""
    name, found = remote.shown(part), 0

    def heard(each: Bad) -> None:
        nonlocal found
        found += 1
        assert bad is not None
        bad(each)

    for number, line in streams.lines(part, longest, bad and heard):
        found += 1
        yield f"{name}:{number}", line
    if not found:
        report(streams.empty(name), bad)


def json_row(place: str, line: bytes) -> dict[str, Any]:
    """The object that a line holds."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise streams.not_utf8(place, error) from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(place, "not valid JSON", "mend or remove this line", detail=str(error), excerpt=line) from None
    if not isinstance(row, dict):
        mend = f'give an object such as {{"text": ...}} instead of a {type(row).__name__}'
        raise Unreadable(place, "not a JSON object", mend, excerpt=line)
    return row


def document(row: Mapping[str, Any], field: str, place: str, source: str, id_field: str | None) -> Document:
    """A row as a document; `place` is its name where the row has no id. Null text is empty text."""
    check_field(field, row, place)
    text = row[field]
    if not isinstance(text, str | None):
        raise Unreadable(
            place,
            f"field '{field}' holds {type(text).__name__}, not text",
            "set read.field to a field of text",
            excerpt=str(text)[:1000],
        )
    return Document(text or "", identity(row, id_field, place), source, facts(row))


def short_enough(found: Document, place: str, longest: int) -> Document:
    """The document; Unreadable where its text has more than `longest` bytes."""
    if 4 * len(found.text) > longest and len(found.text.encode()) > longest:
        raise streams.too_long(place, longest, found.text[:1000].encode())
    return found


def identity(row: Mapping[str, Any], id_field: str | None, place: str) -> str:
    """The row's id, or else its place."""
    name = row.get(id_field) if id_field else None
    return written(str(name)) if isinstance(name, str | int) else place


def facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a row besides its text."""
    found = ((key, row.get(key)) for key in FACTS)
    return {
        key: written(value) if isinstance(value, str) else value
        for key, value in found
        if isinstance(value, str | int | float)
    }


def check_field(field: str, fields: Iterable[Any], place: str, rows: int = 1) -> None:
    """Unreadable, worth `rows` rows, unless `field` is one of `fields`."""
    fields = list(fields)
    if field not in fields:
        there = ", ".join(map(str, fields)) or "none"
        raise Unreadable(
            place,
            f"has no field '{field}'",
            "set read.field to one of them",
            detail=f"fields there: {there}"[:500],
            excerpt=there,
            rows=rows,
        )
