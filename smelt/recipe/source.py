"""YAML text and overrides -> plain data that remembers the file and line of every key."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from smelt.errors import InputError
from smelt.recipe.merge import merge_kind

Path_ = tuple[str | int, ...]
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Source:
    """Nested data (`data`) and where each key was set (`places`: key path -> "file:line" or the override)."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.places: dict[Path_, str] = {}

    def place(self, path: Path_) -> str:
        """Where `path` was set, or its nearest parent that was."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return "recipe"


def read_source(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read a recipe file, the `base` files it includes (nearest file wins) and `a.b=c` overrides, in that order."""
    source = Source()
    _include(source, path, ())
    for override in overrides:
        _override(source, override)
    return source


def _include(source: Source, path: Path, parents: tuple[Path, ...]) -> None:
    if path.resolve() in parents:
        raise InputError(f"{path}: 'base' files include each other; break the circle")
    loaded = _load(path)
    base = loaded.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise InputError(f"{path}: base: expected a file name, got {base!r}")
        _include(source, path.parent / base, (*parents, path.resolve()))
    source.places[()] = str(path)
    _merge(source, source.data, loaded, (), str(path))


def _load(path: Path) -> Any:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the recipe file")
    try:
        loaded = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe; check the path, or start one with 'smelt init DIR'") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected keys such as 'name:' and 'model:', found {type(loaded).__name__}")
    return loaded


def _merge(source: Source, into: dict[str, Any], new: Any, path: Path_, file: str) -> None:
    for key, value in new.items():
        here = (*path, key)
        _forget(source, here, unless_merging=isinstance(value, dict) and merge_kind(into.get(key), value))
        line = (new.lc.data or {}).get(key, (new.lc.line,))[0]  # a merged key has the line of what it is merged into
        source.places[here] = f"{file}:{line + 1}"
        if isinstance(value, dict):
            if not merge_kind(into.get(key), value):
                into[key] = {}
            _merge(source, into[key], value, here, file)
        elif isinstance(value, list):
            into[key] = [_item(source, value, index, here, file) for index in range(len(value))]
        else:
            into[key] = _plain(value, source.places[here], here)


def _item(source: Source, items: Any, index: int, path: Path_, file: str) -> Any:
    here = (*path, index)
    source.places[here] = f"{file}:{items.lc.item(index)[0] + 1}"
    value = items[index]
    if isinstance(value, dict):
        item: dict[str, Any] = {}
        _merge(source, item, value, here, file)
        return item
    if isinstance(value, list):
        return [_item(source, value, inner, here, file) for inner in range(len(value))]
    return _plain(value, source.places[here], here)


def _forget(source: Source, path: Path_, unless_merging: bool) -> None:
    if not unless_merging:
        for known in [known for known in source.places if known[: len(path)] == path]:
            del source.places[known]


def _plain(value: Any, place: str, path: Path_) -> Any:
    """A scalar without YAML's wrapper types, environment variables (`$NAME`, `${NAME}`) expanded in strings."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)

    def expand(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise InputError(f"{place}: {dotted(path)}: environment variable ${name} is not set; set it")
        return os.environ[name]

    return _VARIABLE.sub(expand, str(value))


def _override(source: Source, override: str) -> None:
    name, equals, text = override.partition("=")
    place = f"override '{override}'"
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
        raise InputError(f"{place}: expected KEY.SUBKEY=VALUE, such as train.optimizer.lr=1e-3")
    try:
        value = YAML(typ="safe").load(text) if text.strip() else None
    except YAMLError:
        raise InputError(f"{place}: the value is not valid YAML; quote it") from None
    *parents, last = name.split(".")
    at: Any = source.data
    path: Path_ = ()
    for part in parents:
        at, key = _step_into(at, part, place)
        path = (*path, key)
        if at.get(key) is None if isinstance(at, dict) else False:
            at[key] = {}
        at = at[key]
    at, key = _step_into(at, last, place)
    path = (*path, key)
    if key == "kind" and isinstance(at, dict) and at.get("kind") not in (None, value):
        at.clear()
    _forget(source, path, unless_merging=False)
    source.places[path] = place
    at[key] = _expand_all(value, place, path)


def _step_into(at: Any, part: str, place: str) -> tuple[Any, str | int]:
    if isinstance(at, list):
        if not part.isdigit() or int(part) >= len(at):
            raise InputError(f"{place}: '{part}' is no index of a list of {len(at)}; use 0 to {len(at) - 1}")
        return at, int(part)
    if not isinstance(at, dict):
        raise InputError(f"{place}: '{part}' is below a plain value; check the key")
    return at, part


def _expand_all(value: Any, place: str, path: Path_) -> Any:
    if isinstance(value, dict):
        return {key: _expand_all(item, place, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand_all(item, place, (*path, index)) for index, item in enumerate(value)]
    return _plain(value, place, path)


def dotted(path: Path_) -> str:
    """`("train", "stages", 0)` -> `train.stages.0`."""
    return ".".join(str(part) for part in path)
