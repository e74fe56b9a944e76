"""The pretraining step: artifacts opened, evaluation hooked in, one run trained to its end or to a clean stop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smelt.dataset.shards import Shards, open_sources, open_split
from smelt.dataset.trace import trace
from smelt.errors import InputError, Stopped
from smelt.files import fingerprint
from smelt.lifecycle.artifacts import Artifacts, prepare
from smelt.lifecycle.steps import Steps
from smelt.marathon.evaluate import Evaluation
from smelt.marathon.run import data_fingerprint, train_run
from smelt.model.warm import resolved
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoint_path
from smelt.train.loop import Hook


def pretrain(
    recipe: Recipe,
    project: Path,
    *,
    resume: bool,
    steps: Steps,
    hooks: Sequence[Hook] = (),
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train the recipe's model in `runs/NAME`; raises Stopped when asked to stop before the last step."""
    recipe = resolved(recipe)
    model, train = recipe.section("model"), recipe.section("train")
    run = project / "runs" / recipe.name
    ready = prepare(recipe, project, steps.shared)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)

    def work() -> None:
        outcome = train_run(
            recipe,
            run,
            ready.tokenizer,
            sources,
            resume=resume,
            hooks=[Evaluation(recipe, sources, _validation(ready)), *hooks],
            say=say,
        )
        if not outcome.done:
            raise Stopped(f"{run}: stopped at step {outcome.step}, saved; {_go_on(resume)}")

    section = {"seed": recipe.seed, "span": recipe.dataset.span, "model": model.model_dump(mode="json")}
    data = data_fingerprint(ready.tokenizer, sources)
    key = fingerprint({**section, "train": train.model_dump(mode="json"), "data": data})
    steps.own("train", key, resume and checkpoint_path(run, train.total_steps).is_dir(), work)


def trace_step(run: Path, step: int, project: Path) -> list[dict[str, Any]]:
    """The documents behind step `step` (from 1) of a run, as `smelt.dataset.trace.trace` gives them."""
    if not (run / "recipe.yaml").is_file():
        raise InputError(f"{run}: no such run; name a folder such as runs/demo")
    recipe = load_recipe(run / "recipe.yaml")
    last = recipe.section("train").total_steps
    if not 1 <= step <= last:
        raise InputError(f"--step {step}: this run has steps 1 to {last}")
    ready = prepare(recipe, project)
    return trace(recipe, open_sources(recipe, ready.shards, ready.tokenizer), ready.tokenizer, step - 1)


def _validation(ready: Artifacts) -> dict[str, Shards]:
    return open_split(ready.shards, "validation", ready.tokenizer) if ready.shards else {}


def _go_on(resume: bool) -> str:
    return "run the same command again to go on" if resume else "run it again with --resume to go on"
