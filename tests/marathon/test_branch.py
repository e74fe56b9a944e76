"""Runs that go on from a step of another, and runs that are amended: rewound, made to pass over batches, or stopped by
a loss that is no number."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from smelt.dataset.shards import open_sources
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import train_run
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoint_path, checkpoints
from smelt.train.loop import Hook, Training
from smelt.train.records import rows

ONE = "train.stages=[{name: one, steps: 12, mixture: {docs: 1, math: 1}}]"
KEPT = ("train.checkpoints={every_steps: 4, keep: 9}", "evals.tasks=[]")


def train(workshop: Any, recipe: Recipe, resume: bool = False, hooks: tuple[Hook, ...] = ()) -> Path:
    ready = prepare(recipe, workshop.project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    run = workshop.project / "runs" / recipe.name
    return train_run(recipe, run, ready.tokenizer, sources, resume=resume, hooks=hooks).run


def losses(run: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(run / "metrics.jsonl")}


@pytest.fixture(scope="module")
def trunk(workshop: Any) -> Path:
    return train(workshop, workshop.load("trunk", ONE, *KEPT))


def branch(workshop: Any, name: str, *changes: str) -> Recipe:
    steps = "train.stages=[{name: one, steps: 4, mixture: {docs: 1, math: 1}}]"
    recipe: Recipe = workshop.load(name, steps, *KEPT, "train.from={run: trunk, step: 8}", *changes)
    return recipe


def test_a_branch_that_plans_what_its_trunk_did_repeats_it_bitwise_and_leaves_it_alone(
    workshop: Any, trunk: Path
) -> None:
    """OPT-08, `train.from`: schedule, data order, weights and optimizer go on, and resume too."""
    before = {path: path.read_bytes() for path in trunk.rglob("*") if path.is_file()}
    run = train(workshop, branch(workshop, "repeats"))
    assert losses(run) == {step: loss for step, loss in losses(trunk).items() if step > 8}
    weights = "checkpoints/step-00000012/model.safetensors"
    assert (run / weights).read_bytes() == (trunk / weights).read_bytes()
    assert {path: path.read_bytes() for path in trunk.rglob("*") if path.is_file()} == before
    frozen = load_recipe(run / "recipe.yaml").section("train").trunk
    assert frozen is not None and [each.steps for each in frozen.past] == [8]
    shutil.rmtree(checkpoint_path(run, 12))
    whole = losses(run)
    train(workshop, branch(workshop, "repeats"), resume=True)
    assert losses(run) == whole and list(rows(run / "events.jsonl"))[1]["kind"] == "branch"


def test_a_reset_leaves_the_optimizers_state_behind(workshop: Any, trunk: Path) -> None:
    """OPT-13, the side of the run: weights go on, moments start at zero."""
    run = train(workshop, branch(workshop, "reset", "train.from={run: trunk, step: 8, optimizer: reset}"))
    assert losses(run)[9] == losses(trunk)[9] and losses(run)[10] != losses(trunk)[10]


@pytest.mark.parametrize(
    ("start", "named"),
    [
        ("{run: nowhere, step: 8}", r"train\.from\.run: 'nowhere' is no run"),
        ("{run: trunk, step: 7}", r"train\.from\.step: .*trunk has no checkpoint of step 7, only of 4, 8, 12"),
        ("{run: trunk, step: 99}", r"train\.from\.step: run 'trunk' has steps 1 to 12, not 99"),
    ],
)
def test_a_trunk_that_is_not_there_is_refused_by_name(workshop: Any, trunk: Path, start: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        train(workshop, branch(workshop, "lost", f"train.from={start}"))
    assert not (workshop.project / "runs" / "lost" / "recipe.yaml").exists()


def test_an_amendment_rewinds_to_before_it_and_passes_over_a_batch(workshop: Any, trunk: Path) -> None:
    """MARA-12, the side of the run: later batches keep their order, and the newer checkpoints are gone past."""
    run = train(workshop, workshop.load("amended", ONE, *KEPT))
    recipe = workshop.load("amended", ONE, *KEPT, "amendments=[{from_step: 6, skip: 1}]")
    train(workshop, recipe, resume=True)
    straight, amended = losses(trunk), losses(run)
    assert [amended[step] == straight[step] for step in range(1, 13)] == [True] * 6 + [False] * 6
    resumed = next(row for row in rows(run / "events.jsonl") if row["kind"] == "resume")
    assert resumed["step"] == 4
    train(workshop, recipe, resume=True)
    assert len(load_recipe(run / "recipe.yaml").amendments) == 1


class Spoil(Hook):
    """Makes a weight no number after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, training: Training, row: dict[str, Any] | None) -> None:
        if training.at.step == self.step:
            with torch.no_grad():
                training.model.norm.weight[0] = torch.nan


@pytest.mark.parametrize("every", [1, 3])
def test_a_loss_that_is_no_number_names_step_documents_and_checkpoint(
    workshop: Any, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad input, whether the step is logged or not, while the checkpoint is still being written, and no
    spoilt checkpoint is saved."""
    monkeypatch.setattr("smelt.train.saving._yield_to_training", lambda: time.sleep(0.5))
    recipe = workshop.load(f"spoilt-{every}", ONE, *KEPT, f"train.log_every_steps={every}")
    named = r"loss of step 7 is not a number on rank 0, in \S+ document \d+.*newest good checkpoint is .*step-00000004"
    with pytest.raises(InputError, match=named):
        train(workshop, recipe, hooks=(Spoil(6),))
    run = workshop.project / "runs" / recipe.name
    assert [path.name for path in checkpoints(run)] == ["step-00000004"]
    told = list(rows(run / "events.jsonl"))[-1]
    assert (told["kind"], told["step"]) == ("loss_lost", 7) and len(told["documents"]) > 3
    assert max(losses(run)) <= 6
