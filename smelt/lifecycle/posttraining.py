"""The post-training steps: each stage on the model the one before left, evaluated in the chat format."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from smelt.errors import InputError
from smelt.evals.run import evaluate
from smelt.evals.task import NEXT_ITEM, ask
from smelt.files import MANIFEST, write_json, write_text
from smelt.lifecycle.export import export_checkpoint
from smelt.lifecycle.keys import evaluation_key, stage_keys
from smelt.lifecycle.steps import Steps
from smelt.model.generate import generate
from smelt.model.load import load_model
from smelt.posttrain.answer import answer
from smelt.posttrain.stage import run_stage
from smelt.posttrain.template import asking
from smelt.recipe.dump import to_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.posttrain import Posttrain, SupervisedFineTuning
from smelt.tokenizer.tokenizer import load_tokenizer
from smelt.train.checkpoints import checkpoint_path
from smelt.train.precision import resolve_device

CONVERSATIONS = (
    "What is 47 + 38?",
    "What is 61 - 25?",
    "Mia has 23 apples. Mia buys 18 more. How many apples does Mia have now?",
    "Reverse the word 'stone'.",
    "Sort the numbers 9, 2, 7 from small to large.",
)


def check_alone() -> None:
    """InputError under torchrun with several processes: post-training has one."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            "posttrain: runs in one process; start 'smelt train' with torchrun, and then 'smelt posttrain' without it"
        )


def export_base(recipe: Recipe, run: Path, steps: Steps) -> Path:
    """The run's last checkpoint as a Hugging Face folder, `RUN/export`."""
    out = run / "export"
    checkpoint = checkpoint_path(run, Plan(recipe).total_steps)
    if not (checkpoint / MANIFEST).is_file():
        raise InputError(f"{run}: has no finished checkpoint of its last step; run 'smelt train' with --resume first")
    key = stage_keys(recipe, run)[0]
    steps.own("export", key, (out / MANIFEST).is_file(), lambda: export_checkpoint(checkpoint, out))
    return out


def posttrain(
    recipe: Recipe, project: Path, *, only: str | None = None, say: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Run the post-training stages (or `only` one) of a recipe whose run has finished; returns the models' folders."""
    check_alone()
    section: Posttrain = recipe.section("posttrain")
    names = [stage.name for stage in section.stages]
    if only is not None and only not in names:
        raise InputError(f"posttrain.stages: no stage '{only}'; the recipe has {', '.join(names)}")
    run = project / "runs" / recipe.name
    if not (run / "recipe.yaml").is_file():
        raise InputError(f"{run}: no such run; 'smelt train' the recipe first, or 'smelt run' it all")
    steps = Steps(run / "timings.json", say)
    export_base(recipe, run, steps)
    return run_stages(recipe, run, steps, only=only)


def run_stages(recipe: Recipe, run: Path, steps: Steps, only: str | None = None) -> list[Path]:
    """Each stage and its evaluation, finished ones skipped; returns the folders `RUN/posttrain/NAME`."""
    section: Posttrain = recipe.section("posttrain")
    _freeze(section, run)
    model, folders = run / "export", []
    for stage, key in zip(section.stages, stage_keys(recipe, run)[1:], strict=True):
        out = run / "posttrain" / stage.name
        if only in (None, stage.name):
            _tune(recipe, steps, stage, key, model, out)
            measured = (out / "eval.json").is_file()
            measure = partial(_measure, recipe, run, stage.name, out)
            steps.own(f"{stage.name}-evaluation", evaluation_key(recipe, key), measured, measure)
            folders.append(out)
        model = out
    return folders


def _freeze(section: Posttrain, run: Path) -> None:
    """Put post-training as it is now into the run's frozen recipe: it may change after training has ended."""
    frozen = load_recipe(run / "recipe.yaml")
    if frozen.posttrain != section:
        write_text(run / "recipe.yaml", to_yaml(frozen.model_copy(update={"posttrain": section})))


def _tune(recipe: Recipe, steps: Steps, stage: SupervisedFineTuning, key: str, model: Path, out: Path) -> None:
    device = resolve_device(recipe.infra)
    heard = steps.heard(stage.name)
    work = partial(run_stage, stage, model, out, seed=recipe.seed, device=device.type, progress=heard)
    steps.own(stage.name, key, (out / MANIFEST).is_file(), work)


def _measure(recipe: Recipe, run: Path, name: str, folder: Path) -> None:
    """Score a tuned model and the base model on the same items, and let both answer a few questions."""
    section: Posttrain = recipe.section("posttrain")
    common = {"tasks": section.tasks, "items": section.items, "seed": recipe.seed, "samples": recipe.evals.samples}
    plan = Plan(load_recipe(run / "recipe.yaml"))  # with the past of a run that went on from another
    at = {"step": plan.total_steps, "tokens": plan.tokens_before(plan.total_steps)}
    device, tokenizer = resolve_device(recipe.infra), load_tokenizer(folder)
    tuned, base = load_model(folder).to(device), load_model(run / "export").to(device)
    scores = evaluate(tuned, tokenizer, render=asking(tokenizer), **common)
    write_json(folder / "eval.json", {**at, "model": name, **scores})
    write_json(run / "export" / "eval.json", {**at, "model": "base", **evaluate(base, tokenizer, **common)})
    said = answer(tuned, tokenizer, [[{"role": "user", "content": each}] for each in CONVERSATIONS], max_tokens=128)
    continued = generate(base, tokenizer, [ask(prompt, "").prompt for prompt in CONVERSATIONS], max_tokens=64)
    rows = [
        {"prompt": prompt, "base": before.partition(NEXT_ITEM)[0].strip(), "tuned": {name: after}}
        for prompt, before, after in zip(CONVERSATIONS, continued, said, strict=True)
    ]
    write_json(folder / "conversations.json", rows)
