"""Two tables from a filter's kind: to the scorer that measures documents, and to the rules that judge its scores."""

from collections.abc import Callable
from typing import Any

from smelt.corpus.filters import (
    c4_quality,
    classifier,
    fineweb_quality,
    gopher_quality,
    gopher_repetition,
    language,
    predicate,
    repeated_spans,
    shape,
)
from smelt.corpus.filters.scores import Drops, Scorer, Scores

FILTERS: dict[str, Callable[[Any], Scorer]] = {
    "gopher-quality": gopher_quality.scorer,
    "gopher-repetition": gopher_repetition.scorer,
    "c4-quality": c4_quality.scorer,
    "fineweb-quality": fineweb_quality.scorer,
    "repeated-spans": repeated_spans.scorer,
    "lengths": shape.lengths_scorer,
    "symbols": shape.symbols_scorer,
    "language": language.LanguageScorer,
    "classifier": classifier.ClassifierScorer,
    "predicate": predicate.PredicateScorer,
}
RULES: dict[str, Callable[[Any, Scores], Drops]] = {
    "gopher-quality": gopher_quality.THRESHOLDS,
    "gopher-repetition": gopher_repetition.drops,
    "c4-quality": c4_quality.THRESHOLDS,
    "fineweb-quality": fineweb_quality.THRESHOLDS,
    "repeated-spans": repeated_spans.THRESHOLDS,
    "lengths": shape.LENGTH_THRESHOLDS,
    "symbols": shape.SYMBOL_THRESHOLDS,
    "language": language.reasons,
    "classifier": classifier.THRESHOLDS,
    "predicate": predicate.reasons,
}


def reasons(section: Any, scores: Scores) -> Drops:
    """Reason in plain words -> mask [documents] of those it drops, in the order in which a filter states its rules."""
    return RULES[section.kind](section, scores)
