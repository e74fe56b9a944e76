"""Labelled examples -> a classifier, measured on examples that it has not seen.

Numbers as labels make a regression, as FineWeb-Edu's 0 to 5 (Penedo et al. 2024); words make a classification of one
label against all others. A tenth of the texts, chosen by their hash, measures; another chooses the regularisation.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.classifier.features import Counts, Shape, counter
from smelt.corpus.classifier.measures import measured
from smelt.corpus.classifier.model import Facts, Model
from smelt.errors import InputError

FEWEST = 50
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_BATCH = 512
Labels = NDArray[np.float64]


def train(
    texts: Sequence[str], labels: Sequence[float] | Sequence[str], shape: Shape, positive: str | None = None
) -> tuple[Model, dict[str, Any]]:
    """The model, trained on nine tenths of the texts, and its measures on the others; InputError for bad labels."""
    targets, facts = _targets(labels, shape, positive)
    count = counter(shape)
    counts = _joined([count(texts[first : first + _BATCH]) for first in range(0, len(texts), _BATCH)])
    parts = np.array([_part(text) for text in texts])
    trained, chosen, unseen = parts > 1, parts == 1, parts == 0
    for name, part in (("train", trained), ("choose with", chosen), ("measure with", unseen)):
        if not part.any() or (facts.positive and len(set(targets[part])) < 2):
            raise InputError(f"too few examples of each label to {name} ({len(texts)} in all); label more texts")
    fitted = {strength: _fit(facts, _rows(counts, trained), targets[trained], strength) for strength in STRENGTHS}
    losses = {strength: _loss(model, _rows(counts, chosen), targets[chosen]) for strength, model in fitted.items()}
    best = min(losses, key=losses.__getitem__)
    known = trained | chosen
    model = _fit(facts, _rows(counts, known), targets[known], best)
    scores = model.scores(_rows(counts, unseen)).astype(np.float64)
    report = {
        "task": facts.task,
        "examples": {"trained": int(known.sum()), "measured": int(unseen.sum())},
        "regularisation": best,
        **measured(facts, scores, targets[unseen], float(targets[known].mean())),
    }
    return model, report


def _targets(labels: Sequence[Any], shape: Shape, positive: str | None) -> tuple[Labels, Facts]:
    if len(labels) < FEWEST:
        raise InputError(f"{len(labels)} labelled texts; at least {FEWEST} are needed")
    names = sorted({label for label in labels if isinstance(label, str)})
    if not names:
        if positive is not None:
            raise InputError(f"--positive '{positive}': the labels are numbers, which make a regression; leave it out")
        targets = np.array(labels, dtype=np.float64)
        low, high = float(targets.min()), float(targets.max())
        if low == high:
            raise InputError(f"every label is {low:g}; a model can only learn from labels that differ")
        return targets, Facts(task="regression", shape=shape, low=low, high=high)
    if positive not in names:
        given = f"--positive '{positive}' is none of the labels" if positive else "the labels are words"
        raise InputError(f"{given}; name the good one: --positive {' | '.join(names[:10])}")
    if len(names) == 1:
        raise InputError(f"every label is '{names[0]}'; a model can only learn from labels that differ")
    targets = np.array([label == positive for label in labels], dtype=np.float64)
    return targets, Facts(task="classification", shape=shape, positive=positive)


def _fit(facts: Facts, counts: Counts, targets: Labels, strength: float) -> Model:
    try:
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError:
        raise InputError("training a classifier needs scikit-learn; pip install 'smelt[data]'") from None

    shape = (len(counts.starts) - 1, facts.shape.buckets)
    matrix = csr_matrix((counts.values().astype(np.float64), counts.indices, counts.starts), shape=shape)
    fitted: Any
    if facts.task == "regression":
        fitted = Ridge(alpha=strength, solver="sparse_cg", tol=1e-5).fit(matrix, targets)
        return Model(facts, fitted.coef_.astype(np.float32), float(fitted.intercept_))
    fitted = LogisticRegression(C=10 / strength, max_iter=1000).fit(matrix, targets)
    return Model(facts, fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0]))


def _loss(model: Model, counts: Counts, targets: Labels) -> float:
    """Mean squared error, or nats a text."""
    scores = model.scores(counts).astype(np.float64)
    if model.facts.task == "regression":
        return float(np.mean((scores - targets) ** 2))
    near = np.clip(np.where(targets == 1, scores, 1 - scores), 1e-7, 1)
    return float(-np.log(near).mean())


def _part(text: str) -> int:
    """0 to 9, by the text alone, so that copies of one text never stand on both sides."""
    return int(hashlib.blake2b(text.encode(), digest_size=8, person=b"smelt classify").hexdigest(), 16) % 10


def _rows(counts: Counts, wanted: NDArray[np.bool_]) -> Counts:
    lengths = np.diff(counts.starts)
    entries = np.repeat(wanted, lengths)
    starts = np.concatenate([[0], np.cumsum(lengths[wanted])])
    return Counts(starts, counts.indices[entries], counts.counts[entries])


def _joined(parts: Sequence[Counts]) -> Counts:
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    indices, counted = (np.concatenate([part[column] for part in parts]) for column in (1, 2))
    return Counts(np.concatenate([[0], np.cumsum(lengths)]), indices, counted)
