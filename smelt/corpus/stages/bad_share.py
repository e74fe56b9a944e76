"""Stops a build when too much of a source could not be read."""

from collections.abc import Mapping, Sequence
from typing import Any

from smelt.corpus.readers import parts, read
from smelt.errors import InputError
from smelt.recipe.sections.corpus import Source


def check_bad_share(
    name: str, source: Source, seed: int, marks: Sequence[Mapping[str, Any]], limit: float, first: Mapping[str, Any]
) -> None:
    """InputError where bad rows are a larger share of a source than `limit`; `first` is the first of them."""
    bad = sum(mark["bad_rows"] for mark in marks)
    total = bad + sum(mark["read"]["documents"] for mark in marks)
    if bad > limit * total:
        raise InputError(
            f"corpus.sources.{name}: {_told(source, name, seed, first)} ({bad:,} of {total:,} rows are bad; "
            f"corpus.bad_share allows {limit:.3g} of them)"
        )


def _told(source: Source, name: str, seed: int, first: Mapping[str, Any]) -> str:
    """What the reader says of the first bad row, with its mend; what is on record where it does not meet it again."""
    place, reason = first["place"], first["reason"]
    wanted = [part for part in parts(source.read) if part and place.startswith(part)]
    try:
        for _ in read(source.read, name, seed, max(wanted, key=len, default=None)):
            pass
    except InputError as error:
        return str(error)
    return f"{place}: {reason}; mend or remove it"
