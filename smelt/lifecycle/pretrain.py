"""The pretraining step: artifacts opened, evaluation hooked in, one run trained to its end or to a clean stop."""

from collections.abc import Callable, Sequence
from pathlib import Path

from smelt.errors import Stopped
from smelt.evals.tasks import find_tasks
from smelt.files import fingerprint
from smelt.lifecycle.artifacts import Artifacts, prepare
from smelt.lifecycle.evaluation import command, validation_shards
from smelt.lifecycle.steps import Steps
from smelt.marathon.adapt import Adaptation
from smelt.marathon.evaluate import CheckpointEvaluation, LiveEvaluation, Measure
from smelt.marathon.run import Outcome, data_fingerprint, train_run
from smelt.model.warm import resolved
from smelt.parallel.world import World, start
from smelt.recipe.layout import check_layout
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoint_path
from smelt.train.loop import Hook
from smelt.train.precision import resolve_device
from smelt.train.together import Together


def pretrain(
    recipe: Recipe,
    project: Path,
    *,
    resume: bool,
    steps: Steps,
    hooks: Sequence[Hook] = (),
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Train the recipe's model in `runs/NAME`; raises Stopped when asked to stop before the last step.

    Under torchrun every rank calls this; the first, to which it returns true, builds what is missing of the data, and
    does whatever comes after training.
    """
    find_tasks(recipe.evals.tasks)
    find_tasks(recipe.posttrain.tasks if recipe.posttrain else ())
    world = World.of_environment(resolve_device(recipe.infra))
    recipe = resolved(recipe)
    start(world, check_layout(recipe, world.ranks))
    try:
        _pretrain(recipe, project, resume, steps, hooks, say, world)
        return world.is_first
    finally:
        world.close()


def _pretrain(
    recipe: Recipe,
    project: Path,
    resume: bool,
    steps: Steps,
    hooks: Sequence[Hook],
    say: Callable[[str], None],
    world: World,
) -> None:
    run, ranks = project / "runs" / recipe.name, Together(world)
    ready = _prepared(recipe, project, steps, ranks)
    sources = ready.sources(recipe)

    measure = Measure(recipe, sources, validation_shards(ready))
    evaluation: Hook = LiveEvaluation(measure)
    if world.ranks > 1:
        evaluation = CheckpointEvaluation(measure, lambda checkpoint: command(project, run, checkpoint))

    adapt = recipe.section("train").adapt
    adaptation = None if adapt is None else Adaptation(adapt, say)
    followers = [evaluation, *([] if adaptation is None else [adaptation]), *hooks]

    def train(changed: Recipe, resume: bool) -> Outcome:
        return train_run(changed, run, ready.tokenizer, sources, resume=resume, hooks=followers, say=say, world=world)

    def amended(outcome: Outcome) -> Recipe | None:
        if adaptation is None or outcome.done or outcome.asked:
            return None
        return ranks.first(lambda: adaptation.amended(recipe, run, outcome.step))

    def work() -> None:
        outcome = train(recipe, resume)
        while (changed := amended(outcome)) is not None:
            outcome = train(changed, resume=True)
        if not outcome.done:
            raise Stopped(f"{run}: stopped at step {outcome.step}, saved; {_go_on(resume)}")

    key = _key(recipe, data_fingerprint(ready.tokenizer, sources))
    there = resume and checkpoint_path(run, Plan(recipe).total_steps).is_dir()
    skipped = ranks.first(lambda: steps.done("train", key, there))
    if world.is_first:
        steps.own("train", key, skipped, work)
    elif not skipped:
        work()


def _prepared(recipe: Recipe, project: Path, steps: Steps, ranks: Together) -> Artifacts:
    """What training reads, built by the first rank."""
    built: list[Artifacts] = []
    ranks.first(lambda: built.append(prepare(recipe, project, steps.shared)))
    return built[0] if built else prepare(recipe, project)


def _key(recipe: Recipe, data: str) -> str:
    """Identifies what is trained."""
    section = {
        "seed": recipe.seed,
        "span": recipe.dataset.span,
        "model": recipe.section("model").model_dump(mode="json"),
    }
    amendments = [each.model_dump(mode="json") for each in recipe.amendments]
    train = recipe.section("train").model_dump(mode="json")
    return fingerprint({**section, "train": train, "data": data, **({"amendments": amendments} if amendments else {})})


def _go_on(resume: bool) -> str:
    return "run the same command again to go on" if resume else "run it again with --resume to go on"
