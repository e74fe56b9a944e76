"""Runs on changing mixtures: ramps, caps, long documents resolved and resumed; sources counted; plateaus answered."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smelt.dataset.order import DataOrder
from smelt.errors import InputError
from smelt.files import write_json
from smelt.lifecycle.artifacts import prepare
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.marathon.adapt import Adaptation, restored
from smelt.parallel.world import World
from smelt.recipe.branch import with_amendments
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.amendment import Amendment
from smelt.train.checkpoints import Progress, checkpoint_path, read_progress
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


def test_an_amendment_at_a_plateau_is_known_again_on_an_empty_disk(workshop: Any, tmp_path: Path) -> None:
    """The run's records come back before the user's recipe, which does not know it, is held against a checkpoint."""
    upload = ("train.adapt.apply=true", f"train.checkpoints.upload={tmp_path}")
    recipe = workshop.load("far-adapting", *STUCK, *upload)
    run = train(workshop, recipe)
    frozen = load_recipe(run / "recipe.yaml")
    assert [each.by for each in frozen.amendments] == ["plateau"]
    shutil.rmtree(run)
    train(workshop, recipe, resume=True)
    assert load_recipe(run / "recipe.yaml").amendments == frozen.amendments
    assert not events(run, "fallback") and sorted(by_step(run)) == list(range(1, 11))


def test_a_recipe_that_cannot_take_what_its_run_has_amended_is_refused_in_a_line(workshop: Any) -> None:
    change = {"from_step": 9, "set": {"train.stages.1.mixture": {"docs": 1}}, "by": "plateau"}
    frozen = with_amendments(workshop.load("amended"), [Amendment.model_validate(change)], "it")
    shorter = workshop.load("amended", "train.stages=[{name: one, steps: 20, mixture: {docs: 1}}]")
    with pytest.raises(InputError, match=r"^amendments: they do not fit the recipe, with those that the run made"):
        restored(shorter, frozen)


def test_evaluations_of_a_future_that_was_abandoned_make_no_plateau(workshop: Any, tmp_path: Path) -> None:
    """MARA-12: what was measured of later steps before the run was rewound counts again once it is measured again."""
    recipe = workshop.load("rewound", *STUCK)
    adaptation = Adaptation(recipe.section("train").adapt, lambda text: None)
    world = World.single(torch.device("cpu"))
    training: Any = SimpleNamespace(
        run=tmp_path, plan=Plan(recipe), at=Progress(step=4), engine=SimpleNamespace(world=world)
    )
    for step in (2, 4, 6, 8):
        evaluated(tmp_path, step)
    adaptation.started(training)
    for step in (5, 6, 7):
        training.at.step = step
        adaptation.stepped(training, {})
        assert not events(tmp_path, "plateau")
    time.sleep(0.02)
    evaluated(tmp_path, 6)
    adaptation.stepped(training, {})
    assert [row["stalled"] for row in events(tmp_path, "plateau")] == [["sums"]]


def evaluated(run: Path, step: int) -> None:
    """Write an evaluation of a run whose sums stand still while its prose gets better."""
    sums, prose = {"score": 0.5, "n": 10**6}, {"bits_per_byte": 3 - 0.2 * step}
    scores = {"step": step, "tokens": 512 * step, "tasks": {"addition": sums}, "validation": {"docs": prose}}
    write_json(run / "evals" / f"step-{step:08d}.json", scores)
