"""A few examples of what was dropped or changed: always the same ones, wherever and in whatever order they are met."""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

PER_REASON = 20


class Samples:
    """At most `PER_REASON` rows a reason: those whose ids have the smallest hashes."""

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[int, int, Any]]] = {}
        self._added = 0

    def add(self, reason: str, name: str, row: Callable[[], Any]) -> None:
        """Offer a document's row, which is made only where it is among those held."""
        held = self._held.setdefault(reason, [])
        hashed = -_hash(name)
        if len(held) == PER_REASON and hashed <= held[0][0]:
            return
        self._added += 1
        (heapq.heappush if len(held) < PER_REASON else heapq.heapreplace)(held, (hashed, -self._added, row()))

    def rows(self) -> list[Any]:
        """The held rows, by reason in the order in which they were met."""
        return [row for held in self._held.values() for _, _, row in sorted(held, key=lambda each: each[:2])[::-1]]


def merged(rows: Iterable[Any], key: str) -> list[Any]:
    """One sample out of several, whose rows carry their reason as `key`, and their "id"."""
    samples = Samples()
    for row in rows:
        samples.add(row[key], row["id"], partial(_itself, row))
    return samples.rows()


def _itself(row: Any) -> Any:
    return row


def edit_sample(edit: str, name: str, text: str, new: str, changes: Mapping[str, int]) -> dict[str, Any]:
    """A row that shows what an edit did to a document."""
    before, after = _around_change(text, new)
    return {"edit": edit, "id": name, "before": before, "after": after, "changes": dict(changes)}


def _around_change(before: str, after: str, width: int = 400) -> tuple[str, str]:
    """About `width` characters of two texts, from a little before the first place where they differ."""
    differs = next((at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = max(0, (min(len(before), len(after)) if differs is None else differs) - width // 4)
    return before[start : start + width], after[start : start + width]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest(), "big")
