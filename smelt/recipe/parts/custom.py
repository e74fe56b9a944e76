"""A part of the user's own, named `module:Class` in the recipe."""

import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smelt.recipe.parts.part import Part


class Custom(Part):
    """What the `Config` of a user's part extends: its own fields, `count()` and `flops()` (and `kept()` if it decodes).

    `kind` is `module:Class`. `source` is the sha256 of the file that holds the class; it is filled in when the recipe
    is read and, once frozen, must stay what it was.
    """

    kind: str
    source: str | None = None


def custom_class(kind: str) -> type[Any]:
    """The class `module:Class`, from an installed package or the current directory; ValueError says what is wrong."""
    module_name, _, class_name = kind.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"kind '{kind}': cannot import '{module_name}' ({error})") from None
    found = getattr(module, class_name, None)
    config = getattr(found, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Custom)):
        raise ValueError(
            f"kind '{kind}': '{module_name}' has no class '{class_name}' with a Config that extends "
            "smelt.recipe.parts.custom.Custom"
        )
    return found  # type: ignore[no-any-return]


def custom_part(fields: dict[str, Any]) -> Custom:
    """The validated `Config` of the class that `fields["kind"]` names."""
    kind = fields["kind"]
    owner = custom_class(kind)
    source = hashlib.sha256(Path(inspect.getfile(owner)).read_bytes()).hexdigest()
    if fields.get("source") not in (None, source):
        raise ValueError(f"kind '{kind}': its file has changed since this recipe was frozen; restore it, or drop 'source'")
    try:
        part: Custom = owner.Config.model_validate({**fields, "source": source})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return part
