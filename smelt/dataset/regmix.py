"""Mixtures from small runs: draw many, regress what they scored on their weights, and propose the best foreseen.

After RegMix (Liu et al. 2024, "RegMix: Data Mixture as Regression for Language Model Pre-training"): mixtures come from
Dirichlet distributions around a known one, and the proposal is the mean of the best of very many simulated ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.errors import InputError
from smelt.recipe.mixtures.weights import rounded

Floats = NDArray[np.float64]
FOLDS = 5
_STRENGTHS = (2.0, 50.0)  # Dirichlet concentrations per source: from far away to close around the base
_LITTLE = 1e-3  # a share beside which none counts as nothing
_SIMULATED, _BEST = 100_000, 100


@dataclass(frozen=True)
class Proposal:
    """A mixture that is foreseen to be the best: its loss and that of the base, as the `model` of least cross-validated
    error foresees them; `rank` is the Spearman correlation of held-out foresight with what was measured.

    `sure` says whether the foreseen gain is larger than the error of foreseeing one run.
    """

    mixture: Mapping[str, float]
    foreseen: float
    base: float
    model: str
    error: float
    rank: float
    runs: int

    @property
    def sure(self) -> bool:
        """Whether to believe it enough for a run that proves it."""
        return self.base - self.foreseen > self.error


def draw_mixtures(base: Mapping[str, float], count: int, seed: int) -> list[dict[str, float]]:
    """`count` mixtures around the shares of `base`: the base itself, then draws whose closeness varies.

    Shares have four decimals and sum to one, and those of every source are positive.
    """
    names = [name for name, weight in base.items() if weight > 0]
    drawn = _drawn(np.array([base[name] for name in names]), count - 1, np.random.default_rng(seed))
    return [rounded(dict(zip(names, row.tolist(), strict=True))) for row in (_shares(base, names), *drawn)]


def propose(
    mixtures: Sequence[Mapping[str, float]],
    losses: Sequence[float],
    base: Mapping[str, float],
    most: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Proposal:
    """The mixture of least foreseen loss, given what runs of `mixtures` lost; `most` are the largest shares allowed.

    Raises InputError for fewer than ten runs, limits of unknown sources, or limits that leave nothing to propose.
    """
    if len(mixtures) < 2 * FOLDS:
        raise InputError(f"{len(mixtures)} small runs cannot be regressed; make at least {2 * FOLDS}")
    names = list(dict.fromkeys(name for each in [base, *mixtures] for name in each))
    unknown = next((source for source in most or {} if source not in names), None)
    if unknown is not None:
        raise InputError(f"--most: unknown source '{unknown}' (known sources: {', '.join(names)})")
    known = np.array([_shares(each, names) for each in mixtures])
    measured = np.array(losses, dtype=np.float64)
    label, model, foreseen = _best_model(known, measured, seed)
    rows = _simulated(names, base, most or {}, seed)
    order = np.argsort(model.predict(rows), kind="stable")[:_BEST]
    mixture = rounded(dict(zip(names, rows[order].mean(axis=0).tolist(), strict=True)))
    at_answer, at_base = model.predict(np.stack([_shares(mixture, names), _shares(base, names)])).tolist()
    return Proposal(
        mixture=mixture,
        foreseen=at_answer,
        base=at_base,
        model=label,
        error=float(np.abs(foreseen - measured).mean()),
        rank=_spearman(foreseen, measured),
        runs=len(measured),
    )


def _models(seed: int) -> dict[str, Any]:
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import LinearRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

    strengths = np.logspace(-6, 2, 17)
    logs = FunctionTransformer(lambda rows: -np.log(rows + _LITTLE))
    return {
        "linear": make_pipeline(StandardScaler(), RidgeCV(strengths)),
        "logarithmic": make_pipeline(logs, LinearRegression(positive=True)),  # each source helps, less and less
        "quadratic": make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler(), RidgeCV(strengths)),
        "boosted trees": GradientBoostingRegressor(
            n_estimators=200, max_depth=2, learning_rate=0.05, random_state=seed
        ),
    }


def _best_model(rows: Floats, losses: Floats, seed: int) -> tuple[str, Any, Floats]:
    """(name, fitted model, what it foresees of each run from the others) of the regressor with the least error."""
    try:
        from sklearn.model_selection import KFold, cross_val_predict
    except ImportError:
        raise InputError("proposing mixtures needs scikit-learn; install it: pip install 'smelt[data]'") from None
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    foreseen = {name: cross_val_predict(model, rows, losses, cv=folds) for name, model in _models(seed).items()}
    best = min(foreseen, key=lambda name: float(np.abs(foreseen[name] - losses).mean()))
    return best, _models(seed)[best].fit(rows, losses), foreseen[best]


def _simulated(names: list[str], base: Mapping[str, float], most: Mapping[str, float], seed: int) -> Floats:
    """Mixtures to choose from, [simulated, sources], none beyond the limits."""
    rows = _drawn(_shares(base, names) + _LITTLE, _SIMULATED, np.random.default_rng(seed + 1))
    limits = np.array([most.get(name, 1.0) for name in names])
    allowed: Floats = rows[(rows <= limits).all(axis=1)]
    if len(allowed) < _BEST:
        tight = min(most, key=lambda name: most[name])
        raise InputError(f"the limits leave no mixtures to choose from; raise the one of '{tight}' ({most[tight]:g})")
    return allowed


def _drawn(base: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Dirichlet draws around `base`, [count, sources]; concentrations are log-uniform."""
    low, high = np.log(_STRENGTHS)
    strengths = np.exp(generator.uniform(low, high, size=(count, 1))) * len(base)
    gammas = generator.gamma(np.maximum(strengths * base / base.sum(), 1e-2))
    gammas = np.maximum(gammas, 1e-12)
    rows: Floats = gammas / gammas.sum(axis=1, keepdims=True)
    return rows


def _shares(weights: Mapping[str, float], names: Sequence[str]) -> Floats:
    row = np.array([weights.get(name, 0.0) for name in names], dtype=np.float64)
    shares: Floats = row / row.sum()
    return shares


def _spearman(a: Floats, b: Floats) -> float:
    ranks = [np.argsort(np.argsort(each)).astype(np.float64) for each in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1]) if min(each.std() for each in (a, b)) > 0 else 0.0
