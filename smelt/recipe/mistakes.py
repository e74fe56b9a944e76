"""Words for what pydantic finds wrong, where a mistake shows only after sections were put together."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Place = tuple[str | int, ...]


def located(place: Place, message: str) -> ValidationError:
    """A mistake at `place`, below the section that is being checked."""
    problem = PydanticCustomError("value_error", "{message}", {"message": message})
    return ValidationError.from_exception_data("recipe", [InitErrorDetails(type=problem, loc=place, input=None)])


def moved(error: ValidationError, place: Place) -> ValidationError:
    """The first of its mistakes, below `place`."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":
        return located((*place, *first["loc"]), first["msg"])
    details = InitErrorDetails(
        type=first["type"], loc=(*place, *first["loc"]), input=first["input"], ctx=first.get("ctx", {})
    )
    return ValidationError.from_exception_data("recipe", [details])


def in_words(error: Any) -> str:
    """One of `ValidationError.errors()` as `a.b.c: what is wrong`."""
    place, message = error["loc"], error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key here"
    return f"{'.'.join(map(str, place))}: {message[0].lower()}{message[1:]}" if place else message


def of_no_kind(key: str, part: str, known: Iterable[str]) -> str:
    """That no kind of `part` has a field `key`; `known` are the fields of all."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"no kind of {part} has a field '{key}'; " + (f"did you mean '{close[0]}'?" if close else "drop it")


def not_of_this_kind(key: str, kind: str, kinds: Mapping[str, Collection[str]]) -> str:
    """That a part of `kind` has no field `key`; `kinds` gives the fields of every kind."""
    others = [repr(other) for other, fields in kinds.items() if key in fields]
    if others:
        has = "has" if len(others) == 1 else "have"
        return f"kind '{kind}' has no '{key}' ({', '.join(others)} {has}); drop it, or change the kind"
    known = ", ".join(field for field in kinds.get(kind, ()) if field != "kind")
    return f"kind '{kind}' has no '{key}'; {f'it has {known}' if known else 'it takes nothing else'}"
