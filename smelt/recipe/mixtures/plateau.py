"""Finds capabilities that have stopped rising while others go on, and says what mixture would answer that.

A trend is a weighted least-squares line through the newest evaluations; what it gains is judged at the 95 % level from
one side, so that noise alone makes neither a plateau nor a rise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

from smelt.recipe.mixtures.weights import rounded, shares
from smelt.recipe.sections.adapt import Adapt

_SURE = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)  # Student's t at 95 %, 1 to 10 degrees
_NORMAL = 1.645


@dataclass(frozen=True)
class Point:
    """One evaluation: tokens trained on by then, score (more is better) and its standard error (0 if unknown)."""

    tokens: float
    score: float
    error: float = 0.0


@dataclass(frozen=True)
class Trend:
    """What a capability gained over its newest evaluations, give or take `margin`, and what that amounts to."""

    state: Literal["stalled", "rising", "unclear", "too short"]
    gain: float = 0.0
    margin: float = inf


@dataclass(frozen=True)
class Recommendation:
    """A mixture that answers a plateau: shares by source, the capabilities that stalled, and every trend."""

    mixture: Mapping[str, float]
    stalled: tuple[str, ...]
    trends: Mapping[str, Trend]

    def __str__(self) -> str:
        stalled = ", ".join(f"{name} ({self.trends[name].gain:+.3g})" for name in self.stalled)
        rising = ", ".join(f"{name} ({each.gain:+.3g})" for name, each in self.trends.items() if each.state == "rising")
        mixture = ", ".join(f"{source}: {share:g}" for source, share in self.mixture.items())
        return f"{stalled} stalled while {rising} rose; a mixture to answer that: {{{mixture}}}"


def trend(points: Sequence[Point], window: int, gain: float) -> Trend:
    """The trend of the last `window` points: stalled where it surely gained less than `gain`, rising where it surely
    gained more than nothing and not surely less than that; too short below `window` points."""
    newest = list(points)[-window:]
    span = newest[-1].tokens - newest[0].tokens if newest else 0.0
    if len(newest) < window or span <= 0:
        return Trend("too short")
    slope, error = _line(newest)
    gained, margin = slope * span, error * span
    if gained + margin < gain:
        return Trend("stalled", gained, margin)
    return Trend("rising" if gained > margin else "unclear", gained, margin)


def recommend(
    section: Adapt, curves: Mapping[str, Sequence[Point]], mixture: Mapping[str, float]
) -> Recommendation | None:
    """The shift that the section asks for, given each capability's evaluations under the `mixture` at hand; None while
    nothing has stalled, or nothing else rises.

    The weights of a stalled capability's sources are multiplied by `factor`; a source that rising capabilities share
    with it is left as it is.
    """
    trends = {name: trend(curves.get(name, ()), section.window, section.gain) for name in section.capabilities}
    stalled = tuple(name for name, each in trends.items() if each.state == "stalled")
    rising = [name for name, each in trends.items() if each.state == "rising"]
    if not stalled or not rising:
        return None
    kept = {source for name in rising for source in section.capabilities[name].sources}
    raised = {source for name in stalled for source in section.capabilities[name].sources} - kept
    weights = shares(mixture)
    shifted = {name: weight * (section.factor if name in raised else 1.0) for name, weight in weights.items()}
    if all(shifted[name] == weights[name] for name in weights):
        return None
    answer = rounded(shifted)
    return None if answer == rounded(weights) else Recommendation(answer, stalled, trends)


def _line(points: Sequence[Point]) -> tuple[float, float]:
    """(slope a token, half-width of its one-sided 95 % bound) of a line through the points.

    Weights are 1 / error^2 where every error is known; the bound takes the larger of what the errors and what the
    scatter about the line account for.
    """
    known = all(point.error > 0 for point in points)
    weights = [1 / point.error**2 if known else 1.0 for point in points]
    total = sum(weights)
    middle = sum(weight * point.tokens for weight, point in zip(weights, points, strict=True)) / total
    level = sum(weight * point.score for weight, point in zip(weights, points, strict=True)) / total
    pairs = list(zip(weights, points, strict=True))
    spread = sum(weight * (point.tokens - middle) ** 2 for weight, point in pairs)
    slope = sum(weight * (point.tokens - middle) * (point.score - level) for weight, point in pairs) / spread
    left = sum(w * (point.score - level - slope * (point.tokens - middle)) ** 2 for w, point in pairs)
    degrees = len(points) - 2
    sure = _SURE[degrees - 1] if degrees <= len(_SURE) else _NORMAL
    scatter = sure * sqrt(left / degrees / spread)
    return slope, max(scatter, _NORMAL / sqrt(spread) if known else 0.0)
