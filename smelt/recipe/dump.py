"""A recipe -> YAML, and the differences between two."""

import io
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from smelt.recipe.schema import Recipe


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every default written out; loading it again gives an equal recipe."""
    return plain_yaml(recipe.model_dump(mode="json", exclude_none=True))


def plain_yaml(data: Any) -> str:
    """Plain data as block YAML, its keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(data, text)
    return text.getvalue()


@dataclass(frozen=True)
class Change:
    """One key whose value differs; None where a side lacks it."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def diff(a: Recipe, b: Recipe) -> list[Change]:
    """The keys whose resolved values differ, in the order of the recipe."""
    return differences(a.model_dump(mode="json"), b.model_dump(mode="json"))


def differences(a: Any, b: Any) -> list[Change]:
    """`diff` of plain data."""
    before, after = _flat(a), _flat(b)
    keys = list(dict.fromkeys([*before, *after]))
    return [Change(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat
