"""Small runs that tell what a mixture is worth: their recipes written, their results read, a mixture proposed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smelt.dataset.regmix import Proposal, draw_mixtures, propose
from smelt.errors import InputError
from smelt.files import read_json, write_text
from smelt.marathon.evaluate import evaluation_path
from smelt.recipe.dump import plain_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.mixtures.annealing import Pair
from smelt.recipe.mixtures.demand import source_tokens
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.train.records import rows

_HEADER = "# One of {count} mixtures drawn around that of {base}, for 'smelt data propose'.\n"


def write_small_runs(base: Path, recipe: Recipe, count: int, out: Path, seed: int) -> list[Path]:
    """Write `count` recipes `NAME-000.yaml`... into `out`: `base` with another mixture in all of its stages.

    The first has the mixture of the whole of `recipe`, which is `base` as loaded, and the others lie around it.
    """
    mixtures = draw_mixtures(source_tokens(Plan(recipe), own=True), count, seed)
    stages = [stage.model_dump(mode="json", exclude_none=True) for stage in recipe.section("train").stages]
    written = []
    for number, mixture in enumerate(mixtures):
        path = out / f"{recipe.name}-{number:03d}.yaml"
        changed = [{**{key: it for key, it in stage.items() if key != "ramp"}, "mixture": mixture} for stage in stages]
        data = {"base": os.path.relpath(base, out), "name": path.stem, "train": {"stages": changed}}
        write_text(path, _HEADER.format(count=count, base=base.name) + plain_yaml(data))
        written.append(path)
    return written


def write_pair(pair: Pair, out: Path) -> list[Path]:
    """Write both recipes of an annealing pair as `NAME.yaml` into `out`, once they have been checked."""
    for data in pair:
        Recipe.model_validate(data)
    paths = [out / f"{data['name']}.yaml" for data in pair]
    for path, data in zip(paths, pair, strict=True):
        write_text(path, plain_yaml(data))
    return paths


def result(run: Path, target: str) -> tuple[dict[str, float], float]:
    """(tokens that a run read of each source, its loss on `target`) at its end.

    `target` is `validation`, the mean bits per byte over all sources, `validation.SOURCE`, or `task.NAME`, whose score
    counts as a gain. Raises InputError for a run that has not ended, or measured no such thing.
    """
    if not (run / "recipe.yaml").is_file():
        raise InputError(f"{run}: no such run; name folders such as runs/proxy-000")
    plan = Plan(load_recipe(run / "recipe.yaml"))
    path = evaluation_path(run, plan.total_steps)
    if not path.is_file():
        raise InputError(f"{run}: has not been evaluated after its last step, {plan.total_steps}; let it finish")
    last: dict[str, Any] = {}
    for row in rows(run / "metrics.jsonl"):
        last = row if row.get("step") == plan.total_steps else last
    read = {key.removeprefix("tokens_"): it for key, it in last.items() if key.startswith("tokens_")}
    read.pop("per_second", None)
    return read or source_tokens(plan), _loss(run, read_json(path), target)


def propose_from(runs: Sequence[Path], target: str, most: dict[str, float], seed: int = 0) -> Proposal:
    """The mixture that the results of small runs speak for; the first run's is what it is compared with."""
    results = [result(run, target) for run in runs]
    mixtures = [mixture for mixture, _ in results]
    return propose(mixtures, [loss for _, loss in results], mixtures[0], most, seed)


def _loss(run: Path, scores: dict[str, Any], target: str) -> float:
    kind, _, name = target.partition(".")
    if kind == "validation":
        texts = scores["validation"]
        names = [name] if name else list(texts)
        if names and all(each in texts for each in names):
            return float(sum(texts[each]["bits_per_byte"] for each in names) / len(names))
    elif kind == "task" and name in scores["tasks"]:
        return -float(scores["tasks"][name]["score"])
    known = ["validation", *(f"validation.{each}" for each in scores["validation"])]
    known += [f"task.{each}" for each in scores["tasks"]]
    raise InputError(f"--target {target}: {run} has not measured it, but {', '.join(known)}")
