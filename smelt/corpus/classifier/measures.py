"""How well a classifier's scores say what the labels do, and what each threshold would keep."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.classifier.model import Facts

Numbers = NDArray[np.float64]
THRESHOLDS = 9


def measured(facts: Facts, scores: Numbers, targets: Numbers, usual: float) -> dict[str, Any]:
    """Measures of `scores` [texts] against `targets` [texts]; `usual` is the mean label of the training texts.

    For a regression: root mean squared error, that of always saying `usual`, and Spearman's rank correlation; for a
    classification: accuracy, that of always saying the commoner label, and the area under the ROC curve. For both:
    precision, recall and F1 at thresholds, and the share of texts that each keeps.
    """
    if facts.task == "regression":
        errors = scores - targets
        whole: dict[str, Any] = {
            "rmse": float(np.sqrt(np.mean(errors**2))),
            "rmse_of_mean": float(np.sqrt(np.mean((targets - usual) ** 2))),
            "spearman": correlation(ranks(scores), ranks(targets)),
        }
    else:
        share = float(targets.mean())
        whole = {
            "accuracy": float(np.mean((scores >= 0.5) == (targets == 1))),
            "accuracy_of_commoner": max(share, 1 - share),
            "auc": auc(scores, targets == 1),
        }
    return {**whole, "thresholds": [_at(limit, scores, targets, facts) for limit in _limits(facts)]}


def auc(scores: Numbers, good: NDArray[np.bool_]) -> float:
    """The probability that a good text scores above another (ties count half); nan where only one kind is there."""
    number, others = int(good.sum()), int((~good).sum())
    if not number or not others:
        return float("nan")
    return float((ranks(scores)[good].sum() - number * (number + 1) / 2) / (number * others))


def ranks(values: Numbers) -> Numbers:
    """From 1, equal values sharing the mean of theirs."""
    _, groups, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Numbers = (last - (counts - 1) / 2)[groups]
    return mean


def correlation(one: Numbers, other: Numbers) -> float:
    """Pearson's; 0 where one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale else 0.0


def _limits(facts: Facts) -> list[float]:
    """Whole labels where they are few, otherwise even steps between the lowest and the highest."""
    whole = np.arange(np.floor(facts.low) + 1, np.floor(facts.high) + 1)
    if facts.task == "regression" and 1 <= len(whole) <= THRESHOLDS:
        return [float(limit) for limit in whole]
    return [float(limit) for limit in np.linspace(facts.low, facts.high, THRESHOLDS + 2)[1:-1].round(4)]


def _at(limit: float, scores: Numbers, targets: Numbers, facts: Facts) -> dict[str, float]:
    kept = scores >= limit
    good = targets >= (limit if facts.task == "regression" else 1)
    both = float((kept & good).sum())
    precision = both / kept.sum() if kept.any() else 0.0
    recall = both / good.sum() if good.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    found = {"kept": float(kept.mean()), "precision": precision, "recall": recall, "f1": f1}
    return {"threshold": limit, **{key: float(value) for key, value in found.items()}}
