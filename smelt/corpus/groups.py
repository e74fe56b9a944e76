"""Many small files as a few parts: groups of neighbours, the same for the same files."""

import time
from collections.abc import Callable
from typing import Any

from smelt.errors import InputError

Listed = Callable[[Any], dict[str, list[Any]]]
_BYTES, _FILES, _GROUPS = 32 * 2**20, 1024, 64
_FRESH = 20  # a listing is used again for as many times as long as it took
_LISTINGS: dict[str, tuple[float, dict[str, list[str]]]] = {}  # reader -> until when, its groups


def names(reader: Any, listed: Listed) -> list[str]:
    """The parts of a reader, in order, each named by its first file."""
    return list(_fresh(reader, listed))


def members(reader: Any, listed: Listed, part: str) -> list[str]:
    """The files of a part; InputError when there is no such part any more."""
    until, groups = _LISTINGS.get(reader.model_dump_json(), (0.0, {}))
    if part not in groups or time.monotonic() > until:
        groups = _fresh(reader, listed)
    if part not in groups:
        raise InputError(f"{part}: the files of {reader.path} changed while they were read; run the same command again")
    return groups[part]


def grouped(found: dict[str, list[Any]]) -> dict[str, list[str]]:
    """Sorted files, each with [name, size, tag], in at most about 64 groups, none of them small but the last."""
    most_bytes = max(_BYTES, sum(size or 0 for _, size, _ in found.values()) // _GROUPS)
    most_files = max(_FILES, len(found) // _GROUPS)
    made: dict[str, list[str]] = {}
    current: list[str] = []
    held = 0
    for name, (_, size, _) in found.items():
        if not current or held >= most_bytes or len(current) >= most_files:
            current, held = made.setdefault(name, []), 0
        current.append(name)
        held += size or 0
    return made


def _fresh(reader: Any, listed: Listed) -> dict[str, list[str]]:
    began = time.monotonic()
    groups = grouped(listed(reader))
    ended = time.monotonic()
    _LISTINGS[reader.model_dump_json()] = (ended + _FRESH * (ended - began), groups)
    return groups
