"""Labelled examples in JSON Lines: a text a row, and a number or a word that says how good it is."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from smelt.corpus import streams
from smelt.errors import InputError


def labelled(files: Sequence[Path], text: str, label: str) -> tuple[list[str], list[float] | list[str]]:
    """The two fields of every row; InputError names the first row that lacks one, or whose label is of another type."""
    texts: list[str] = []
    labels: list[float | str] = []
    for file in files:
        for number, line in streams.lines(file):
            place = f"{file}:{number}"
            row = _row(line, place)
            for field in (text, label):
                if field not in row:
                    raise InputError(f"{place}: no field '{field}' (it has {', '.join(map(repr, row))}); name another")
            if not isinstance(row[text], str):
                raise InputError(f"{place}: '{text}' is not a string; name another field")
            texts.append(row[text].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
            labels.append(_label(row[label], label, place))
            if type(labels[-1]) is not type(labels[0]):
                raise InputError(f"{place}: '{label}' is {row[label]!r}; labels are all numbers or all words")
    return texts, labels


def _row(line: bytes, place: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}); mend or remove the line") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: not a JSON object; each line is one, with a text and a label")
    return row


def _label(value: object, label: str, place: str) -> float | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise InputError(f"{place}: '{label}' is {value!r:.40}; a label is a number or a word")
    return float(value)
