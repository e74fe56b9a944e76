"""A recipe file -> a `Recipe`, every mistake one line with file, line, key and the mend."""

import difflib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smelt.errors import InputError
from smelt.recipe.schema import Recipe
from smelt.recipe.source import Path_, Source, dotted, read_source

_PATH_IN_MESSAGE = re.compile(r"((?:\w+\.)+\w+): ")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `a.b=c` overrides applied; InputError names file, line, key and mend."""
    return validate(read_source(Path(path), overrides))


def validate(source: Source) -> Recipe:
    """Check data against the schema."""
    try:
        return Recipe.model_validate(source.data)
    except ValidationError as error:
        raise InputError(_explain(source, error)) from None


def _explain(source: Source, error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    paths = {_data_path(source.data, each) for each in errors}
    others = [one for one in paths if not any(other != one and other[: len(one)] == one for other in paths)]
    path = _data_path(source.data, first)
    message = _message(source, first, path)
    named = _PATH_IN_MESSAGE.match(message)
    if named:
        path = tuple(int(part) if part.isdigit() else part for part in named[1].split("."))
        message = message[named.end() :]
    elif first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        path = (*path, "kind")
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    key = f"{dotted(path)}: " if path else ""
    return f"{source.place(path)}: {key}{message}{more}"


def _message(source: Source, error: Any, path: Path_) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest(source, path)}"
    if kind == "missing":
        return "required, but missing; add it"
    if kind == "union_tag_not_found":
        kinds = _at(source.data, path).get("discriminator", {}).get("mapping", {})
        return f"required, but missing; known kinds: {', '.join(repr(kind) for kind in kinds)}"
    if kind == "union_tag_invalid":
        return f"unknown kind '{error['ctx']['tag']}'; known kinds: {error['ctx']['expected_tags']}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = error.get("input")
    shown = f", got {given!r}" if kind != "value_error" and isinstance(given, str | int | float | None) else ""
    return f"{message[0].lower()}{message[1:]}{shown}"


def _nearest(source: Source, path: Path_) -> str:
    *parents, wrong = path
    siblings = list(_at(source.data, tuple(parents)).get("properties", {}))
    close = difflib.get_close_matches(str(wrong), siblings, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    elsewhere = [known for known in _all_keys() if known.split(".")[-1] == wrong]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}'?"
    return f"known keys here: {', '.join(siblings)}"


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    schema["properties"]["base"] = {"type": "string", "description": "Another recipe file that this one changes."}
    return schema


def _resolve(schema: dict[str, Any], data: Any) -> dict[str, Any]:
    """Follow references and pick the branch of a union that fits `data`."""
    while "$ref" in schema:
        schema = json_schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    mapping = schema.get("discriminator", {}).get("mapping", {})
    if isinstance(data, dict) and data.get("kind") in mapping:
        return _resolve({"$ref": mapping[data["kind"]]}, data)
    for branch in schema.get("anyOf", []):
        if branch.get("type") != "null":
            return _resolve(branch, data)
    return schema


def _at(data: Any, path: Path_) -> dict[str, Any]:
    """The piece of JSON Schema that describes `path` in `data`."""
    schema = _resolve(json_schema(), data)
    for part in path:
        within = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int))
        data = data[part] if within else None
        inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        named = [schema.get("additionalProperties") or {}, *schema.get("patternProperties", {}).values()]
        schema = _resolve(inner or named[-1], data)
    return schema


def _data_path(data: Any, error: Any) -> Path_:
    """pydantic's location without the names of types and union branches that it inserts."""
    path: Path_ = ()
    for part in error["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            path, data = (*path, part), data[part]
    return (*path, error["loc"][-1]) if error["type"] == "missing" else path


@cache
def _all_keys() -> list[str]:
    """Every dotted key of the schema, unions merged."""
    keys: list[str] = []

    def walk(schema: dict[str, Any], prefix: str) -> None:
        while "$ref" in schema:
            schema = json_schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        for branch in schema.get("anyOf", []) + schema.get("oneOf", []):
            walk(branch, prefix)
        for name, inner in schema.get("properties", {}).items():
            keys.append(f"{prefix}{name}")
            walk(inner, f"{prefix}{name}.")

    walk(json_schema(), "")
    return keys
