"""How one mapping of a recipe changes another: same kind merges, new kind replaces."""

from typing import Any


def merge_kind(old: Any, new: dict[str, Any]) -> bool:
    """Whether mapping `new` merges into `old`: both mappings, and of the same `kind` where they state one."""
    return isinstance(old, dict) and new.get("kind", old.get("kind")) == old.get("kind", new.get("kind"))


def merged(old: Any, new: dict[str, Any]) -> dict[str, Any]:
    """`old` with the fields of `new`, mappings inside them merged likewise."""
    if not merge_kind(old, new):
        return new
    return {**old, **{key: merged(old.get(key), it) if isinstance(it, dict) else it for key, it in new.items()}}


def put(data: Any, keys: list[str], value: Any) -> None:
    """Set the field that `keys` lead to, through mappings and lists; a field that is not there yet begins empty, and a
    list takes one entry more."""
    *parents, last = keys
    for key in parents:
        if isinstance(data, dict):
            data[key] = {} if data.get(key) is None else data[key]
        data = data[key] if isinstance(data, dict) else data[int(key)]
    if isinstance(data, list) and int(last) == len(data):
        data.append(value)
        return
    place: Any = int(last) if isinstance(data, list) else last
    old = data[place] if isinstance(data, list) else data.get(place)
    data[place] = merged(old, value) if isinstance(value, dict) else value
