"""Caps on sources: the factors that keep each within what it may give, worked out once and then part of the recipe."""

from collections.abc import Mapping
from math import floor
from typing import TYPE_CHECKING

from pydantic import ValidationError

from smelt.errors import InputError
from smelt.recipe.mistakes import in_words
from smelt.recipe.mixtures.demand import source_tokens
from smelt.recipe.plan import Plan

if TYPE_CHECKING:
    from smelt.recipe.schema import Recipe

_ROUNDS = 200
_CLOSE = 1e-4  # how far below its cap a source may end
_DIGITS = 1e6


def with_caps(recipe: "Recipe", available: Mapping[str, int], frozen: "Recipe | None" = None) -> "Recipe":
    """`recipe` with the factor of every cap filled in; `available` are the tokens that each source holds.

    A capped source's weights are multiplied by one factor over all stages, and the others of each stage fill what it
    leaves. Where a run goes on, a cap keeps the factor of its `frozen` recipe. Raises InputError where sources without
    a cap cannot fill what is left, or a trunk has taken more than a cap allows already.
    """
    if recipe.train is None or all(cap.factor is not None for cap in recipe.train.caps.values()):
        return recipe
    known = _known(recipe, frozen)
    open_caps = [source for source in recipe.train.caps if source not in known]
    limits = {source: _limit(recipe, source, available) for source in open_caps}
    factors = {**known, **dict.fromkeys(open_caps, 1.0)}
    for _ in range(_ROUNDS):
        tried = _with_factors(recipe, factors)
        plan = Plan(tried)
        used = source_tokens(plan)
        over = {source: limit for source, limit in limits.items() if used.get(source, 0.0) > limit}
        if not over:
            return tried
        past, total = source_tokens(plan, own=False), sum(used.values())
        for source, limit in over.items():
            factors[source] *= _closer(source, used[source], limit, past.get(source, 0.0), total)
            factors[source] = floor(factors[source] * _DIGITS) / _DIGITS
            if not factors[source]:
                raise InputError(_unfilled(source, limit))
    raise InputError(_unfilled(*next(iter(over.items()))))


def _closer(source: str, used: float, limit: float, past: float, total: float) -> float:
    """What to multiply a factor with: exact where the source is drawn alike from all that is left to train."""
    if past >= limit:
        raise InputError(f"train.caps.{source}: the trunk has read {past:,.0f} tokens of it already; raise the cap")
    aim, mine, others = limit * (1 - _CLOSE) - past, used - past, total - used
    return min(1 - 1 / _DIGITS, max(0.0, aim) / mine * (others / (others + mine - aim) if others else 1.0))


def _known(recipe: "Recipe", frozen: "Recipe | None") -> dict[str, float]:
    """Factors that are decided: by the recipe, or by the run that goes on under the same cap."""
    assert recipe.train is not None
    before = frozen.train.caps if frozen is not None and frozen.train is not None else {}
    known = {}
    for source, cap in recipe.train.caps.items():
        same = source in before and before[source].model_copy(update={"factor": None}) == cap
        factor = before[source].factor if same else cap.factor
        if factor is not None:
            known[source] = factor
    return known


def _limit(recipe: "Recipe", source: str, available: Mapping[str, int]) -> float:
    assert recipe.train is not None
    cap = recipe.train.caps[source]
    return float(cap.tokens) if cap.tokens is not None else (cap.epochs or 0.0) * available.get(source, 0)


def _with_factors(recipe: "Recipe", factors: Mapping[str, float]) -> "Recipe":
    train = recipe.section("train")
    caps = {source: cap.model_copy(update={"factor": factors[source]}) for source, cap in train.caps.items()}
    changed = train.model_copy(update={"caps": caps})
    try:
        return type(recipe).model_validate({**dict(recipe), "train": changed})
    except ValidationError as error:
        raise InputError(in_words(error.errors()[0])) from None


def _unfilled(source: str, limit: float) -> str:
    return (
        f"train.caps.{source}: at most {limit:,.0f} tokens of it leave a stage that the other sources cannot fill "
        "under their caps; give the stage another source, raise a cap, or shorten it"
    )
