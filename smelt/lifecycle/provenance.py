"""From a run back to its documents: what a step trained on, and when a text was seen."""

from pathlib import Path
from typing import Any

from smelt.dataset.find import find
from smelt.dataset.trace import trace
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.train.records import rows


def trace_step(run: Path, step: int, project: Path) -> list[dict[str, Any]]:
    """The documents behind step `step` (from 1) of a run, as `smelt.dataset.trace.trace` gives them."""
    recipe = _recipe(run)
    last = Plan(recipe).total_steps
    if not 1 <= step <= last:
        raise InputError(f"--step {step}: this run has steps 1 to {last}")
    ready = prepare(recipe, project)
    return trace(recipe, ready.sources(recipe), ready.tokenizer, step - 1)


def find_text(run: Path, text: str, project: Path, limit: int) -> list[dict[str, Any]]:
    """The first `limit` places of a text in the data of a run, as `smelt.dataset.find.find` gives them, with steps
    counted from 1, each with `done`: whether the run has taken it."""
    recipe = _recipe(run)
    ready = prepare(recipe, project)
    places = find(recipe, ready.sources(recipe), ready.tokenizer, text, limit)
    taken = max((row["step"] for name in ("metrics", "events") for row in rows(run / f"{name}.jsonl")), default=0)
    for place in places:
        place["seen"] = [{**seen, "step": seen["step"] + 1, "done": seen["step"] < taken} for seen in place["seen"]]
    return places


def _recipe(run: Path) -> Recipe:
    if not (run / "recipe.yaml").is_file():
        raise InputError(f"{run}: no such run; name a folder such as runs/demo")
    return load_recipe(run / "recipe.yaml")
