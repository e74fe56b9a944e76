"""The account of a recipe's data before anything runs: what each stage takes of each source, and how often.

`smelt data plan` prints and draws it; it needs sizes of sources only for epochs and caps.
"""

from collections.abc import Mapping
from typing import Any

from smelt.recipe.mixtures.caps import with_caps
from smelt.recipe.mixtures.demand import StageDemand, epoch_warnings, stage_demands
from smelt.recipe.mixtures.notices import notices
from smelt.recipe.mixtures.weights import shares
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe


def account(recipe: Recipe, available: Mapping[str, int]) -> dict[str, Any]:
    """What the recipe's plan consumes, JSON-serialisable; `available` are the tokens of the sources of known size.

    `stages` have by source its tokens, its share, and its `epochs` once the stage is over, and by class of
    `dataset.classes` its share; `sources` the same over the whole plan with what is `available` and the factor of a
    cap; `curve` the shares between changes of mixture. Values that hang on an unknown size are None. The stages of a
    trunk come first, if the recipe has its past. Raises InputError where caps cannot be kept.
    """
    left_out = _left_out(recipe, available)
    if not left_out:
        recipe = with_caps(recipe, available)
    plan, trunk = Plan(recipe), recipe.section("train").trunk
    demands = [each for each in stage_demands(plan) if each.own or trunk.past is not None]
    stages, so_far = [], dict.fromkeys(_drawn(demands), 0.0)
    for demand in demands:
        for source, tokens in demand.sources.items():
            so_far[source] += tokens
        stages.append(_stage(recipe, demand, so_far, available))
    factors = {source: cap.factor for source, cap in recipe.section("train").caps.items()}
    total = sum(so_far.values())
    return {
        "name": recipe.name,
        "steps": plan.total_steps,
        "tokens": sum(demand.tokens for demand in demands),
        "stages": stages,
        "sources": {
            source: {
                "tokens": round(tokens),
                "share": tokens / total,
                "available": available.get(source),
                "epochs": _epochs(tokens, source, available),
                "cap_factor": factors.get(source),
            }
            for source, tokens in so_far.items()
        },
        "classes": _classes(recipe, so_far),
        "curve": _curve(plan, plan.tokens_before(demands[0].first)),
        "notices": notices(recipe) + left_out,
        "warnings": epoch_warnings(recipe, available),
    }


def _stage(
    recipe: Recipe, demand: StageDemand, so_far: Mapping[str, float], available: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "name": demand.name,
        "own": demand.own,
        "first_step": demand.first,
        "last_step": demand.end,
        "tokens": demand.tokens,
        "ramp_tokens": demand.ramp_tokens,
        "sources": {
            source: {
                "tokens": round(tokens),
                "share": demand.shares[source],
                "epochs": _epochs(so_far[source], source, available),
            }
            for source, tokens in demand.sources.items()
        },
        "classes": _classes(recipe, demand.sources),
    }


def _left_out(recipe: Recipe, available: Mapping[str, int]) -> list[str]:
    """What cannot be part of the account, and why."""
    train = recipe.section("train")
    unknown = [
        f"'{source}'"
        for source, cap in train.caps.items()
        if cap.epochs is not None and cap.factor is None and source not in available
    ]
    said = []
    if unknown:
        said.append(f"train.caps: all left out, as the size of {', '.join(unknown)} is unknown; give it with --have")
    if train.trunk is not None and train.trunk.past is None:
        said.append(f"train.from: left out with all caps, as what run '{train.trunk.run}' read is not known here")
    return said


def _drawn(demands: list[StageDemand]) -> list[str]:
    return list(dict.fromkeys(source for demand in demands for source in demand.sources))


def _epochs(tokens: float, source: str, available: Mapping[str, int]) -> float | None:
    return tokens / available[source] if available.get(source) else None


def _classes(recipe: Recipe, sources: Mapping[str, float]) -> dict[str, float]:
    """Shares by class; sources of none are classes of their own. {} where the recipe has no classes."""
    if not recipe.dataset.classes:
        return {}
    of = {source: name for name, sources in recipe.dataset.classes.items() for source in sources}
    sums = dict.fromkeys(recipe.dataset.classes, 0.0)
    for source, share in shares(sources).items():
        name = of.get(source, source)
        sums[name] = sums.get(name, 0.0) + share
    return sums


def _curve(plan: Plan, first: int) -> list[dict[str, Any]]:
    """Stretches of tokens with one mixture, from token `first` on."""
    rows: list[dict[str, Any]] = []
    for segment in (each for each in plan.segments if each.tokens >= first):
        last = segment.tokens + (segment.end - segment.first) * segment.batch_tokens
        row = {"first_token": segment.tokens, "last_token": last, "shares": shares(segment.mixture)}
        if rows and rows[-1]["shares"] == row["shares"]:
            rows[-1]["last_token"] = last
        else:
            rows.append(row)
    return rows
