"""The annealing protocol: what a candidate source is worth, from two short runs off one checkpoint of a trunk.

One trains on 60 % candidate and 40 % of the mixture at hand while the learning rate decays to zero, its control goes on
with that mixture alone under the same schedule; both as recipes that any run could be (PLAYBOOK: 50B tokens from 7T).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from smelt.errors import InputError
from smelt.recipe.mixtures.weights import rounded, shares
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe

SHARE = 0.6


class Pair(NamedTuple):
    """The two recipes, as plain data."""

    candidate: dict[str, Any]
    control: dict[str, Any]


def annealing_pair(
    trunk: Recipe, step: int, candidate: str, tokens: int, *, share: float = SHARE, shards: str | None = None
) -> Pair:
    """Recipes that go on from `step` of the run of `trunk` for `tokens`, named `TRUNK-anneal-CANDIDATE` and
    `TRUNK-anneal-control`.

    `candidate` is a source of the trunk's, drawn from or not, or a new one whose token shards lie in the folder
    `shards`; both recipes list it, so that nothing but the mixture differs. Raises InputError for a step that the trunk
    has not, a share that is none, or a candidate of unknown data.
    """
    plan = Plan(trunk)
    if not 1 <= step <= plan.total_steps:
        raise InputError(f"--step {step}: run '{trunk.name}' has steps 1 to {plan.total_steps}")
    if not 0 < share < 1:
        raise InputError(f"--share {share:g}: the candidate's share lies between 0 and 1, such as 0.6")
    if (candidate in trunk.sources) == (shards is not None):
        known = ", ".join(trunk.sources)
        mend = "leave out its shards" if shards is not None else "name its folder of token shards"
        raise InputError(f"candidate '{candidate}': {mend} (sources of '{trunk.name}': {known})")
    current = shares(plan.at(step - 1).mixture)
    go_on = partial(_recipe, trunk, step, tokens, {candidate: shards} if shards is not None else {})
    return Pair(
        go_on(f"{trunk.name}-anneal-{candidate}", blend(current, candidate, share)),
        go_on(f"{trunk.name}-anneal-control", dict(current)),
    )


def blend(current: Mapping[str, float], candidate: str, share: float) -> dict[str, float]:
    """`share` of the candidate and the rest as the current mixture has it, the candidate's own part in it included."""
    mixed = {source: (1 - share) * weight for source, weight in shares(current).items()}
    mixed[candidate] = mixed.get(candidate, 0.0) + share
    return rounded(mixed)


def _recipe(
    trunk: Recipe, step: int, tokens: int, shards: Mapping[str, str], name: str, mixture: dict[str, float]
) -> dict[str, Any]:
    segment = Plan(trunk).at(step - 1)
    data: dict[str, Any] = trunk.model_dump(mode="json", exclude_none=True, exclude={"amendments", "train"})
    data["dataset"]["shards"] |= shards
    train = segment.train.model_dump(mode="json", exclude_none=True, exclude={"batch_warmup", "caps", "adapt"})
    schedule = {"kind": "wsd", "warmup_steps": 0, "decay_fraction": 1.0}
    stage = {"name": "anneal", "tokens": tokens, "mixture": mixture, "schedule": schedule}
    train |= {
        "from": {"run": trunk.name, "step": step},
        "sequence": segment.sequence,
        "batch_tokens": segment.batch_tokens,
        "packing": segment.packing,
        "stages": [stage],
    }
    return {**data, "name": name, "train": train}
