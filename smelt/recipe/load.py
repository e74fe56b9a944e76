"""A recipe file -> a `Recipe`, every mistake one line with file, line, key and the mend."""

import difflib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smelt.errors import InputError
from smelt.recipe.mistakes import not_of_this_kind
from smelt.recipe.schema import Recipe
from smelt.recipe.source import Path_, Source, dotted, read_source

_PATH_IN_MESSAGE = re.compile(r"((?:\w+\.)+\w+): ")  # of a rule that spans sections, below the section it is in
_OWN_PART = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}


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
        path = (*path, *(int(part) if part.isdigit() else part for part in named[1].split(".")))
        message = message[named.end() :]
    elif first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        path = (*path, "kind")
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    key = f"{dotted(path)}: " if path else ""
    return f"{source.place(path)}: {key}{message}{more}"


def _message(source: Source, error: Any, path: Path_) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(source, path)
    if kind == "missing":
        return "required, but missing; add it"
    if kind == "union_tag_not_found":
        _, kinds = _kinds(source.data, path)
        return f"required, but missing; known kinds: {', '.join(repr(kind) for kind in kinds)}"
    if kind == "union_tag_invalid":
        return f"unknown kind '{error['ctx']['tag']}'; known kinds: {error['ctx']['expected_tags']}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = error.get("input")
    shown = f", got {given!r}" if kind != "value_error" and isinstance(given, str | int | float | None) else ""
    return f"{message[0].lower()}{message[1:]}{shown}"


def _unknown_key(source: Source, path: Path_) -> str:
    *parents, wrong = path
    siblings = list(_at(source.data, tuple(parents)).get("properties", {}))
    kind, kinds = _kinds(source.data, tuple(parents))
    close = difflib.get_close_matches(str(wrong), [name for name in siblings if name != "kind"], n=1, cutoff=0.5)
    if close and not any(wrong in fields for fields in kinds.values()):
        return f"unknown key; did you mean '{close[0]}'?"
    if kind in kinds:
        return not_of_this_kind(str(wrong), kind, kinds)
    elsewhere = [known for known in _all_keys() if known.split(".")[-1] == wrong]
    if elsewhere:
        return f"unknown key; did you mean '{elsewhere[0]}'?"
    return f"unknown key; known keys here: {', '.join(siblings)}"


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    schema["properties"]["base"] = {"type": "string", "description": "Another recipe file that this one changes."}
    for part in ("attention", "feedforward"):
        schema["$defs"]["Model"]["properties"][part]["oneOf"].append(_OWN_PART)
    schema["$defs"]["Train"]["properties"]["optimizer"]["oneOf"].append(_OWN_PART)
    schema["$defs"]["Part"] = schema["$defs"]["Model"]["properties"]["attention"]  # of a branch: any mixer
    return schema


def _resolve(schema: dict[str, Any], data: Any) -> dict[str, Any]:
    """Follow references and pick the branch of a union that fits `data`."""
    schema = _followed(schema)
    kind, branches = _branches(schema, data)
    if kind in branches:
        return _resolve(branches[kind], data)
    choices = [it for it in schema.get("anyOf", schema.get("oneOf", [])) if it.get("type") != "null"]
    if not choices or branches:
        return schema
    given = set(data) if isinstance(data, dict) else set()
    fitting = (choice for choice in choices if given.issuperset(_followed(choice).get("required", ())))
    return _resolve(next(fitting, choices[0]), data)


def _followed(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = json_schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _branches(schema: dict[str, Any], data: Any) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """The kind of `data`, given or usual, and the schema of every kind that could stand there."""
    mapping = schema.get("discriminator", {}).get("mapping", {})
    branches = {kind: _followed({"$ref": reference}) for kind, reference in mapping.items()}
    usual = (kind for kind, branch in branches.items() if "default" in branch["properties"]["kind"])
    return (data.get("kind", next(usual, None)) if isinstance(data, dict) else None), branches


def _kinds(data: Any, path: Path_) -> tuple[str | None, dict[str, tuple[str, ...]]]:
    """The kind that stands at `path`, and the fields of every kind that could."""
    schema, at = _walk(data, path)
    choices = [_followed(schema), *map(_followed, schema.get("anyOf", []))]
    kind, branches = next((found for found in (_branches(it, at) for it in choices) if found[1]), (None, {}))
    return kind, {name: tuple(branch["properties"]) for name, branch in branches.items()}


def _at(data: Any, path: Path_) -> dict[str, Any]:
    """The piece of JSON Schema that describes `path` in `data`, the branch of a union chosen."""
    return _resolve(*_walk(data, path))


def _walk(data: Any, path: Path_) -> tuple[dict[str, Any], Any]:
    """The piece of JSON Schema that describes `path`, unions whole, and what stands there."""
    schema = json_schema()
    for part in path:
        schema = _resolve(schema, data)
        within = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int))
        data = data[part] if within else None
        inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        named = [schema.get("additionalProperties") or {}, *schema.get("patternProperties", {}).values()]
        schema = inner or named[-1]
    return (schema if isinstance(schema, dict) else {}), data


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
        schema = _followed(schema)
        for branch in schema.get("anyOf", []) + schema.get("oneOf", []):
            walk(branch, prefix)
        for name, inner in schema.get("properties", {}).items():
            keys.append(f"{prefix}{name}")
            if name != "branches":  # whose mixers can have branches
                walk(inner, f"{prefix}{name}.")

    walk(json_schema(), "")
    return keys
