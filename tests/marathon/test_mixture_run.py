"""Runs on changing mixtures: ramps, caps, long documents resolved and resumed; sources counted; plateaus answered."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smelt.dataset.order import DataOrder
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoint_path, read_progress
from smelt.train.records import rows

MIXED = (
    "dataset.long={long-docs: {of: docs, tokens: 256}}",
    "train.stages.0.steps=6",
    "train.stages.1={name: two, steps: 8, mixture: {docs: 1, math: 2, long-docs: 1}, ramp: {steps: 4, rungs: 2}}",
    "train.caps={math: {tokens: 2Ki}}",
    "evals={tasks: [], every_steps: 100, validation_bytes: 300}",
)
STUCK = (
    "train.adapt={capabilities: {sums: {tasks: [addition], sources: [math]}, "
    "prose: {validation: [docs], sources: [docs]}}, window: 3, gain: 0.1}",
    "train.stages.0.steps=8",
    "train.stages.1.steps=2",
    "evals={tasks: [addition], items: 40, every_steps: 2, validation_bytes: 300}",
)


def train(workshop: Any, recipe: Recipe, resume: bool = False) -> Path:
    run: Path = workshop.project / "runs" / recipe.name
    pretrain(recipe, workshop.project, resume=resume, steps=Steps(run / "timings.json", lambda text: None))
    return run


def by_step(run: Path) -> dict[int, dict[str, Any]]:
    """The last row of each step."""
    return {row["step"]: row for row in rows(run / "metrics.jsonl")}


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in rows(run / "events.jsonl") if row["kind"] == kind]


@pytest.fixture(scope="module")
def mixed(workshop: Any) -> Path:
    return train(workshop, workshop.load("mixed", *MIXED))


def test_caps_are_frozen_and_every_source_is_counted_in_metrics_and_checkpoints(workshop: Any, mixed: Path) -> None:
    """DATA-02: tokens by source in metrics.jsonl are those of the checkpointed state, and add up."""
    frozen = load_recipe(mixed / "recipe.yaml")
    assert frozen.section("train").caps["math"].factor < 1
    sources = prepare(frozen, workshop.project).sources(frozen)
    order = DataOrder(frozen, {name: shards.tokens for name, shards in sources.items()})
    for step, row in by_step(mixed).items():
        counted = {key.removeprefix("tokens_"): row[key] for key in row if key.startswith("tokens_")}
        counted.pop("per_second")
        assert sum(counted.values()) == row["tokens"] == step * 512
        assert counted == {name: each["tokens"] for name, each in order.consumed(step).items() if each["tokens"]}
    for step in (10, 14):
        state = read_progress(checkpoint_path(mixed, step))
        assert state.consumed == order.consumed(step)
    assert order.consumed(14)["math"]["tokens"] <= 2048 + 64 * 4
    assert order.consumed(14)["long-docs"]["tokens"] > 0


def test_the_rungs_of_a_ramp_are_events(mixed: Path) -> None:
    assert [(row["step"], sorted(row["mixture"])) for row in events(mixed, "ramp")] == (
        [(8, ["docs", "long-docs", "math"]), (10, ["docs", "long-docs", "math"])]
    )
    assert not events(mixed, "amendment")


def test_a_run_that_goes_on_in_a_ramp_repeats_it_exactly(workshop: Any, mixed: Path) -> None:
    """DATA-03, DATA-08: losses of the steps after the checkpoint are the same to the last bit, caps and all."""
    before = {step: row["loss"] for step, row in by_step(mixed).items()}
    for path in (mixed / "checkpoints").iterdir():
        if path.name > "step-00000006":
            shutil.rmtree(path)
    train(workshop, workshop.load("mixed", *MIXED), resume=True)
    assert {step: row["loss"] for step, row in by_step(mixed).items()} == before
    assert events(mixed, "resume")[-1]["step"] == 6


def test_a_checkpoint_that_read_other_tokens_is_refused(workshop: Any, mixed: Path) -> None:
    newest = checkpoint_path(mixed, 14)
    for path in (mixed / "checkpoints").iterdir():
        if path != checkpoint_path(mixed, 10):
            shutil.rmtree(path)
    assert not newest.exists()
    file = checkpoint_path(mixed, 10) / "state.json"
    state = json.loads(file.read_text())
    state["consumed"]["math"]["tokens"] += 64
    manifest = json.loads((file.parent / "manifest.json").read_text())
    file.write_text(json.dumps(state))
    manifest["files"].pop("state.json")
    (file.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"tokens of 'math' had been read by then, where the recipe makes it"):
        train(workshop, workshop.load("mixed", *MIXED), resume=True)


def test_a_plateau_is_recommended_about_and_nothing_else_done(workshop: Any) -> None:
    """DATA-15: a capability at a standstill beside one that rises; the run itself goes on as planned."""
    run = train(workshop, workshop.load("stuck", *STUCK))
    found = events(run, "plateau")
    assert found and found[0]["stalled"] == ["sums"] and found[0]["trends"]["prose"]["state"] == "rising"
    assert found[0]["mixture"] == {"docs": 0.4, "math": 0.6} and not found[0]["applied"]
    assert load_recipe(run / "recipe.yaml").amendments == ()
    assert sorted(by_step(run)) == list(range(1, 11))


def test_a_plateau_is_answered_by_an_amendment_on_record_where_the_recipe_says_so(workshop: Any) -> None:
    """DATA-15: the run leaves, goes on with the shifted mixture, and resumes with the user's own recipe."""
    recipe = workshop.load("adapting", *STUCK, "train.adapt.apply=true")
    run = train(workshop, recipe)
    [found] = events(run, "plateau")
    frozen = load_recipe(run / "recipe.yaml")
    [amendment] = frozen.amendments
    assert found["applied"] and amendment.by == "plateau" and amendment.from_step == found["step"] + 1
    assert amendment.set == {"train.stages.0.mixture": {"docs": 0.4, "math": 0.6}}
    assert sorted(by_step(run)) == list(range(1, 11))
    assert [row["step"] for row in events(run, "resume")] == [amendment.from_step]
    shutil.rmtree(checkpoint_path(run, 10))
    train(workshop, recipe, resume=True)
    assert load_recipe(run / "recipe.yaml").amendments == frozen.amendments
