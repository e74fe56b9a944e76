"""The pretraining step: artifacts opened, evaluation hooked in, one run trained to its end or to a clean stop."""

from collections.abc import Callable, Sequence
from pathlib import Path

from smelt.dataset.shards import open_sources
from smelt.errors import Stopped
from smelt.lifecycle.artifacts import Step, ensure, prepare
from smelt.marathon.evaluate import Evaluation
from smelt.marathon.run import Outcome, train_run
from smelt.recipe.schema import Recipe
from smelt.train.loop import Hook


def pretrain(
    recipe: Recipe,
    project: Path,
    *,
    resume: bool,
    step: Step = ensure,
    hooks: Sequence[Hook] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Train the recipe's model in `runs/NAME`; raises Stopped when asked to stop before the last step."""
    recipe.section("model"), recipe.section("train")
    ready = prepare(recipe, project, step)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    run = project / "runs" / recipe.name
    evaluation = Evaluation(recipe, ready.shards, ready.corpus)
    outcome = train_run(
        recipe, run, ready.tokenizer, sources, resume=resume, hooks=[evaluation, *hooks], say=say
    )
    if not outcome.done:
        raise Stopped(f"{run}: stopped at step {outcome.step}, saved; run the same command with --resume to go on")
    return outcome
