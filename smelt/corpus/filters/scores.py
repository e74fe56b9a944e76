"""What filters share: scores as columns, one value a document, and the thresholds that turn them into drops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.document import Document

Scores = Mapping[str, NDArray[Any]]
Drops = dict[str, NDArray[np.bool_]]


class Scorer(Protocol):
    """Measures documents; whoever made it from its section may keep it for many calls."""

    def score(self, documents: Sequence[Document]) -> dict[str, NDArray[Any]]:
        """Columns by name, each [documents], of numbers or strings."""
        ...


@dataclass(frozen=True)
class Rule:
    """Documents whose `column` is `below` (or `above`) the section's `field` go, for `reason`; None switches it off."""

    reason: str
    column: str
    side: Literal["below", "above"]
    field: str

    def limit(self, section: Any) -> float | None:
        limit: float | None = getattr(section, self.field)
        return limit


@dataclass(frozen=True)
class Thresholds:
    """Rules that are looked at in order."""

    rules: tuple[Rule, ...]

    def __call__(self, section: Any, scores: Scores) -> Drops:
        """Reason -> mask [documents] of those beyond its limit, whether or not an earlier rule drops them as well."""
        drops = {}
        for rule in self.rules:
            limit = rule.limit(section)
            if limit is not None:
                column = scores[rule.column]
                drops[rule.reason] = column < limit if rule.side == "below" else column > limit
        return drops
