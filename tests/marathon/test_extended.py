"""Runs with another end than they were planned with have the losses of runs that were planned so from the outset."""

from pathlib import Path
from typing import Any

from smelt.dataset.shards import open_sources
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import train_run
from smelt.train.records import rows

WSD = "train.schedule={kind: wsd, warmup_steps: 2, decay_steps: 4}"
SAVED = ("train.checkpoints={every_steps: 2, keep: 50}", "evals.tasks=[]", "evals.every_steps=1k")


def train(workshop: Any, name: str, steps: int, *changes: str, resume: bool = False) -> Path:
    stage = f"train.stages=[{{name: one, steps: {steps}, mixture: {{docs: 0.5, math: 0.5}}}}]"
    recipe = workshop.load(name, WSD, stage, *SAVED, *changes)
    ready = prepare(recipe, workshop.project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    return train_run(recipe, workshop.project / "runs" / name, ready.tokenizer, sources, resume=resume).run


def losses(run: Path) -> dict[int, float]:
    """Step -> loss, the last row of each step."""
    return {row["step"]: row["loss"] for row in rows(run / "metrics.jsonl")}


def test_a_run_extended_before_its_decay_equals_one_planned_longer(workshop: Any) -> None:
    """OPT-08: a finished run is lengthened by an amendment, and goes back to where its decay began."""
    run = train(workshop, "lengthened", 16)
    amendment = "amendments=[{from_step: 12, set: {train.stages.0.steps: 24}}]"
    train(workshop, "lengthened", 16, amendment, resume=True)
    assert losses(run) == losses(train(workshop, "planned-long", 24))


def test_a_decay_branch_equals_a_run_planned_shorter(workshop: Any) -> None:
    """OPT-08: a decay from any stable checkpoint, here step 8 of 16."""
    train(workshop, "long-trunk", 16)
    branch = losses(train(workshop, "decay-branch", 6, "train.from={run: long-trunk, step: 8}"))
    planned = losses(train(workshop, "planned-short", 14))
    assert branch == {step: loss for step, loss in planned.items() if step > 8}
