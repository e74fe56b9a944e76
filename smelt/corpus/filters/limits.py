"""Where a filter's thresholds lie on its columns, for whoever draws its scores."""

from typing import Any

from smelt.corpus.filters import gopher_repetition
from smelt.corpus.filters.scores import Thresholds
from smelt.corpus.filters.table import RULES
from smelt.recipe.sections.filters import GopherRepetition


def limits(section: Any) -> dict[str, list[float]]:
    """Column -> the values beyond which the section drops documents; columns without any are absent."""
    if isinstance(section, GopherRepetition):
        pairs = _of_rules(gopher_repetition.THRESHOLDS, section)
        pairs += [(gopher_repetition.top_column(n), limit) for n, limit in section.max_top_ngram.items()]
        pairs += [(gopher_repetition.duplicate_column(n), limit) for n, limit in section.max_duplicate_ngram.items()]
    elif isinstance(rules := RULES[section.kind], Thresholds):
        pairs = _of_rules(rules, section)
    else:
        pairs = [("score", section.min_score)]
    found: dict[str, list[float]] = {}
    for column, limit in pairs:
        if limit is not None:
            found.setdefault(column, []).append(float(limit))
    return found


def _of_rules(rules: Thresholds, section: Any) -> list[tuple[str, float | None]]:
    return [(rule.column, rule.limit(section)) for rule in rules.rules]
