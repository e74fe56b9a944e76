"""One pretraining run, put together: frozen recipe, data, model, optimizer, evaluation, and exact resume."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from smelt.dataset.batches import BatchSource
from smelt.dataset.shards import Shards
from smelt.errors import InputError
from smelt.files import fingerprint, read_json, write_json, write_text
from smelt.marathon.environment import environment
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.warm import resolved, warm_decoder
from smelt.model.weights import read_description
from smelt.optim.optimizers import build_optimizer
from smelt.recipe.dump import to_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.train.checkpoints import Progress, load_checkpoint, newest_whole
from smelt.train.loop import Hook, Training, run_loop
from smelt.train.precision import resolve_device, resolve_dtype
from smelt.train.records import event, repair, rows
from smelt.train.resume import check_rates, check_resume


@dataclass(frozen=True)
class Outcome:
    """How a call of `train_run` ended."""

    run: Path
    step: int
    done: bool


def train_run(
    recipe: Recipe,
    run: Path,
    tokenizer: Tokenizer,
    sources: Mapping[str, Shards],
    *,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Train `recipe` in the run directory `run`, from the start or, with `resume`, from its newest whole checkpoint.

    `sources` are the opened training shards by name. Raises InputError for a run that exists already (without
    `resume`), and for a resume whose recipe or data would have changed the steps already taken.
    """
    device = resolve_device(recipe.infra)
    data = data_fingerprint(tokenizer, sources)
    wanted = _freeze(resolved(recipe), run, device)
    newest = _newest(run, wanted, data, resume, say)
    model, changes = _model(wanted, tokenizer, device, newest)
    training = _assemble(wanted, run, model.to(device), tokenizer, sources, device, data)
    if newest is not None:
        training.at = load_checkpoint(newest, training.model, training.optimizer)
        say(f"resuming from {newest}")
    training.at.life = sum(row["kind"] in ("start", "resume") for row in rows(run / "events.jsonl"))
    if training.at.step >= training.train.total_steps:
        return Outcome(run, training.at.step, True)
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "recipe.yaml", to_yaml(wanted))
    write_json(run / "env.json", environment(device))
    for record in ("metrics.jsonl", "events.jsonl"):
        repair(run / record)
    event(run, "start" if newest is None else "resume", step=training.at.step)
    if model.config.load is not None and newest is None:
        event(run, "warm_start", step=0, load=model.config.load, source=model.config.source, changes=changes)
        for change in [f"starting from {model.config.load}", *changes]:
            say(change)
    done = run_loop(training, hooks)
    event(run, "done" if done else "stop", step=training.at.step)
    return Outcome(run, training.at.step, done)


def data_fingerprint(tokenizer: Tokenizer, sources: Mapping[str, Shards]) -> str:
    """Identifies the token streams a run reads."""
    return fingerprint({"tokenizer": tokenizer.hash, "sources": {name: s.identity for name, s in sources.items()}})


def _freeze(recipe: Recipe, run: Path, device: torch.device) -> Recipe:
    """The recipe with `auto` precision resolved: by this machine, or as the run that is resumed resolved it."""
    train = recipe.section("train")
    if train.precision != "auto":
        return recipe
    if (run / "recipe.yaml").is_file():
        precision = load_recipe(run / "recipe.yaml").section("train").precision
    else:
        precision = "bf16" if resolve_dtype(train, device) == torch.bfloat16 else "fp32"
    return recipe.model_copy(update={"train": train.model_copy(update={"precision": precision})})


def _newest(run: Path, wanted: Recipe, data: str, resume: bool, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from, after checking that going on is allowed; None to start at step 0."""
    if not (run / "recipe.yaml").is_file():
        return None
    if not resume:
        raise InputError(
            f"{run}: this run exists already; add --resume to go on with it, or give the recipe another name"
        )

    def warn(text: str) -> None:
        say(text)
        event(run, "fallback", reason=text)

    newest = newest_whole(run, warn)
    frozen = load_recipe(run / "recipe.yaml")
    at = Progress(**read_json(newest / "state.json")) if newest else Progress()
    check_resume(frozen, wanted, at.step, run)
    check_rates(frozen, wanted, at.step, run)
    if newest is not None and at.data != data:
        raise InputError(
            f"{run}: cannot resume: the token shards or the tokenizer differ from those of step {at.step}; restore "
            "them, or give the run another name"
        )
    return newest


def _model(
    recipe: Recipe, tokenizer: Tokenizer, device: torch.device, newest: Path | None
) -> tuple[Decoder, list[str]]:
    """The model at its start, and how it differs from the checkpoint it starts from; to go on from `newest`, only its
    shape counts."""
    config: Model = recipe.section("model")
    dtype = resolve_dtype(recipe.section("train"), device)
    if newest is not None:
        return Decoder(config, read_description(newest).vocab, dtype), []
    if config.load is not None:
        return warm_decoder(config, tokenizer, dtype, recipe.seed)
    model = Decoder(config, tokenizer.padded, dtype)
    initialise(model, recipe.seed)
    return model, []


def _assemble(
    recipe: Recipe,
    run: Path,
    model: Decoder,
    tokenizer: Tokenizer,
    sources: Mapping[str, Shards],
    device: torch.device,
    data: str,
) -> Training:
    return Training(
        recipe=recipe,
        run=run,
        model=model,
        optimizer=build_optimizer(model, recipe.section("train").optimizer),
        tokenizer=tokenizer,
        batches=BatchSource(recipe, dict(sources), tokenizer.eos),
        device=device,
        at=Progress(data=data),
        sources=recipe.sources,
    )
