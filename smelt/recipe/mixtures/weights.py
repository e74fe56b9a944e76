"""Arithmetic of mixture weights: shares, what lies between two mixtures, and scaling by caps."""

from collections.abc import Mapping

UNITS = 10_000  # shares between two mixtures are whole ten-thousandths, which the data order meets exactly


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights over their sum."""
    largest = max(weights.values())
    scaled = {source: weight / largest for source, weight in weights.items()}  # the sum of finite weights may not be
    total = sum(scaled.values())
    return {source: weight / total for source, weight in scaled.items()}


def rounded(weights: Mapping[str, float]) -> dict[str, float]:
    """Shares as whole multiples of 1 / 10,000 (largest remainders); one at least for a source of any weight, and none
    of weight 0."""
    exact = {source: UNITS * share for source, share in shares(weights).items() if share}
    units = {source: max(int(each), 1) for source, each in exact.items()}
    spare = UNITS - sum(units.values())
    short = sorted(units, key=lambda source: units[source] - exact[source])
    for source in short[: max(0, spare)]:
        units[source] += 1
    units[max(units, key=lambda source: units[source])] += min(0, spare)  # what tiny shares were given too much
    return {source: each / UNITS for source, each in units.items()}


def between(old: Mapping[str, float], new: Mapping[str, float], part: float) -> dict[str, float]:
    """The mixture `part` (0 to 1) of the way from `old` to `new`, in rounded shares."""
    before, after = shares(old), shares(new)
    names = dict.fromkeys([*before, *after])
    return rounded({name: (1 - part) * before.get(name, 0.0) + part * after.get(name, 0.0) for name in names})


def scaled(weights: Mapping[str, float], factors: Mapping[str, float]) -> Mapping[str, float]:
    """Weights with those of capped sources multiplied by their factors; the very same mapping where none is."""
    if not any(source in factors for source in weights):
        return weights
    return {source: weight * factors.get(source, 1.0) for source, weight in weights.items()}
