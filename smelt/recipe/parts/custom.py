"""A part of the user's own, named `module:Class` in the recipe."""

import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from smelt.errors import InputError
from smelt.recipe.mistakes import located, moved, not_of_this_kind
from smelt.recipe.parts.part import Part

_SEEN: dict[str, str] = {}  # module -> hash of its file when it was imported


class Custom(Part):
    """What the `Config` of a user's part extends: its own fields, `count()` and `flops()` (and `kept()` if it decodes).

    `kind` is `module:Class`. `source` is the sha256, shortened, of the file that holds the class: it is filled in when
    the recipe is read, and a frozen recipe's part is built from the same file only.
    """

    kind: str
    source: str | None = None


def is_custom(fields: Any) -> bool:
    """Whether a mapping names a part of the user's own."""
    return isinstance(fields, dict) and isinstance(fields.get("kind"), str) and ":" in fields["kind"]


def with_source(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` of a user's part, its file's hash added where it is not frozen yet."""
    return fields if fields.get("source") else {**fields, "source": source_hash(custom_class(fields["kind"]))}


def custom_part(fields: dict[str, Any]) -> Custom:
    """The validated `Config` of the class that `fields["kind"]` names."""
    kind = fields["kind"]
    owner = custom_class(kind)
    try:
        part: Custom = owner.Config.model_validate(with_source(fields))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            key = str(first["loc"][-1])
            raise located((key,), not_of_this_kind(key, kind, {kind: _own_fields(owner)})) from None
        raise moved(error, ()) from None
    return part


def unchanged_class(part: Custom) -> type[Any]:
    """The class of a part, to be built; InputError when its file is not the one that the recipe was read with."""
    owner = custom_class(part.kind)
    if part.source != source_hash(owner):
        raise InputError(
            f"kind '{part.kind}': {inspect.getfile(owner)} has changed since this recipe was frozen; restore it, or "
            "drop 'source' from the recipe to use it as it is now"
        )
    return owner


def custom_class(kind: str) -> type[Any]:
    """The class `module:Class`, from an installed package or the current directory; ValueError says what is wrong."""
    module_name, _, class_name = kind.partition(":")
    module = imported(kind, module_name)
    found: type[Any] | None = getattr(module, class_name, None)
    if found is None:
        raise ValueError(f"kind '{kind}': {module.__file__} has no '{class_name}'; check the name")
    config = getattr(found, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Custom)):
        raise ValueError(
            f"kind '{kind}': '{class_name}' has no Config that extends smelt.recipe.parts.custom.Custom; give it one"
        )
    for method in ("count", "flops"):
        if getattr(config, method) is getattr(Part, method):
            raise ValueError(f"kind '{kind}': its Config has no {method}(); write it, so that its cost is known")
    return found


def imported(kind: str, name: str, key: str = "kind") -> ModuleType:
    """The module, imported again where its file has changed since (in a notebook); `key` is the field that names it."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
        digest = source_hash(module)
        if _SEEN.setdefault(name, digest) != digest:
            module = importlib.reload(module)
            _SEEN[name] = digest
    except Exception as error:  # whatever the user's file raises
        raise ValueError(f"{key} '{kind}': cannot import '{name}' ({type(error).__name__}: {error})") from None
    return module


def source_hash(owner: type[Any] | ModuleType) -> str:
    """The sha256, shortened, of the file that holds a class or module."""
    return hashlib.sha256(Path(inspect.getfile(owner)).read_bytes()).hexdigest()[:16]


def _own_fields(owner: type[Any]) -> tuple[str, ...]:
    return tuple(name for name in owner.Config.model_fields if name != "source")
