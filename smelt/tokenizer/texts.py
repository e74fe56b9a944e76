"""Texts to compare tokenizers on, named on the command line by language, domain and place."""

import re
from collections.abc import Iterator

from smelt.corpus.readers import read
from smelt.errors import InputError
from smelt.recipe.sections.readers import JsonLines, Parquet, TextFiles
from smelt.tokenizer.measure import Texts

_PLACE = re.compile(r"(?P<language>[^=/]+)(?:/(?P<domain>[^=]+))?=(?P<path>[^#]+)(?:#(?P<field>.+))?")


def texts_at(place: str, limit: int) -> Texts:
    """The first texts, of about `limit` bytes in all, at `LANGUAGE[/DOMAIN]=PATH[#FIELD]`: JSON Lines, Parquet or text.

    `FIELD` holds the text in a row, "text" unless it is given. Raises InputError for anything else.
    """
    parts = _PLACE.fullmatch(place)
    if parts is None:
        raise InputError(f"--text '{place}': write LANGUAGE[/DOMAIN]=PATH[#FIELD], such as en/books=books.jsonl.gz")
    path, field = parts["path"], parts["field"] or "text"
    bare = path.removesuffix(".gz").removesuffix(".zst")
    reader: JsonLines | Parquet | TextFiles
    if bare.endswith((".jsonl", ".json")):
        reader = JsonLines(kind="jsonl", path=path, field=field)
    elif bare.endswith(".parquet"):
        reader = Parquet(kind="parquet", path=path, field=field)
    else:
        reader = TextFiles(kind="text", path=path)
    found = list(_first((each.text for each in read(reader, place, 0)), limit))
    if not found:
        raise InputError(f"--text '{place}': holds no text; check the path and the field")
    return Texts(parts["language"], parts["domain"] or "text", found)


def _first(texts: Iterator[str], limit: int) -> Iterator[str]:
    for text in texts:
        if limit <= 0:
            return
        yield text[:limit]
        limit -= len(text.encode())
