"""What a stage sets reaches the running model when the stage begins, also on resume, and its checkpoints say so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from smelt.dataset.shards import open_sources
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import Outcome, train_run
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.load import load_model
from smelt.model.reconfigure import reconfigure
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoint_path
from smelt.train.records import rows

SHORT = (
    "train.stages.0.steps=3",
    "train.stages.1.steps=4",
    "train.checkpoints={every_steps: 1, keep: 9}",
    "evals.tasks=[]",
)
THETA = "train.stages.1.set={model.position.theta: 5, model.attention.window: 16}"


def train(workshop: Any, recipe: Recipe, resume: bool = False) -> Outcome:
    ready = prepare(recipe, workshop.project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    return train_run(recipe, workshop.project / "runs" / recipe.name, ready.tokenizer, sources, resume=resume)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run / "metrics.jsonl")]


def test_the_model_follows_at_the_start_of_the_stage_and_not_before(workshop) -> None:
    plain = train(workshop, workshop.load("set-nothing", *SHORT)).run
    changed = train(workshop, workshop.load("set-theta", *SHORT, THETA)).run
    assert losses(plain)[:3] == losses(changed)[:3]
    assert all(a != b for a, b in zip(losses(plain)[3:], losses(changed)[3:], strict=True))
    thetas = [load_model(checkpoint_path(changed, step)).config.position.theta for step in (3, 4, 7)]
    assert thetas == [50_000.0, 5.0, 5.0]
    described = json.loads((checkpoint_path(changed, 7) / "model.json").read_text())["model"]
    assert (described["position"]["theta"], described["attention"]["window"]) == (5.0, 16)


@pytest.mark.parametrize("gone", [(6, 7), (4, 5, 6, 7)], ids=["within the stage", "at its start"])
def test_a_resumed_run_goes_on_with_what_its_stage_sets(workshop, gone: tuple[int, ...]) -> None:
    recipe = workshop.load(f"set-resumed-{len(gone)}", *SHORT, THETA)
    run = train(workshop, recipe).run
    before, weights = losses(run), (checkpoint_path(run, 7) / "model.safetensors").read_bytes()
    for step in gone:
        shutil.rmtree(checkpoint_path(run, step))
    train(workshop, recipe, resume=True)
    assert losses(run)[-len(gone) :] == before[-len(gone) :]
    assert (checkpoint_path(run, 7) / "model.safetensors").read_bytes() == weights


def test_a_stage_to_come_may_set_something_else_and_one_begun_may_not(workshop) -> None:
    recipe = workshop.load("set-later", *SHORT, THETA)
    run = train(workshop, recipe).run
    other = workshop.load("set-later", *SHORT, THETA.replace("theta: 5", "theta: 7"))
    with pytest.raises(InputError, match=r"cannot resume with a changed recipe: train\.stages\.1\.set"):
        train(workshop, other, resume=True)
    for step in (4, 5, 6, 7):
        shutil.rmtree(checkpoint_path(run, step))
    train(workshop, other, resume=True)
    assert load_model(checkpoint_path(run, 7)).config.position.theta == 7.0


def test_a_reconfigured_model_keeps_its_weights_and_computes_what_a_new_one_would(workshop) -> None:
    """ARCH-09, ABF: theta changes what is computed, and an optimizer of the old model goes on with the new."""
    recipe = workshop.load("set", *SHORT, THETA)
    first, second = (segment.model for segment in Plan(recipe).segments)
    model, direct = Decoder(first, 512), Decoder(second, 512)
    initialise(model, 0)
    initialise(direct, 0)
    weights, tokens = list(model.parameters()), torch.arange(80).view(2, 40)
    with torch.no_grad():
        before = model(tokens)
        reconfigure(model, first, second, 512)
        assert torch.equal(model(tokens), direct(tokens))
        assert not torch.equal(model(tokens), before)
    assert all(a is b for a, b in zip(weights, model.parameters(), strict=True))
