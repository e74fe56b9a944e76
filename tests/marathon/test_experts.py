"""A run whose layers have experts: what it logs, and that it goes on exactly where it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smelt.dataset.shards import open_sources
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import train_run
from smelt.recipe.schema import Recipe
from smelt.train.records import rows

MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 16, "balance": {"kind": "bias", "rate": 0.01}, "z_loss": 0.001}
LOSS = [{"layers": 1, "feedforward": {"balance": {"kind": "loss"}}}]


def train(workshop: Any, recipe: Recipe, resume: bool = False) -> Path:
    ready = prepare(recipe, workshop.project)
    run = workshop.project / "runs" / recipe.name
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    return train_run(recipe, run, ready.tokenizer, sources, resume=resume, say=lambda text: None).run


def test_loads_and_losses_are_logged_and_a_resumed_run_repeats_them_exactly(workshop: Any) -> None:
    """ARCH-22: every row names the load of every expert; biases are saved, and counters are empty between steps."""
    settings = [f"model.feedforward={json.dumps(MOE)}", f"model.per_layer={json.dumps(LOSS)}", "evals.tasks=[]"]
    recipe = workshop.load("experts", *settings)
    run = train(workshop, recipe)
    straight = {row["step"]: row for row in rows(run / "metrics.jsonl")}
    for row in straight.values():
        assert [sum(loads) for loads in row["expert_load"]] == pytest.approx([4, 4], abs=0.01)
        assert row["expert_load_min"] <= 1 <= row["expert_load_max"]
        assert 0.01 / 4 <= row["balance_loss"] < 0.01 and row["router_z_loss"] > 0
    weights = run / "checkpoints" / "step-00000020" / "model.safetensors"
    whole = weights.read_bytes()
    shutil.rmtree(weights.parent)
    train(workshop, recipe, resume=True)
    assert weights.read_bytes() == whole
    logged = ("loss", "expert_load", "balance_loss", "router_z_loss")
    again = [row for row in rows(run / "metrics.jsonl") if row["life"] == 1]
    assert [row["step"] for row in again] == [16, 17, 18, 19, 20]
    assert all(row[key] == straight[row["step"]][key] for row in again for key in logged)
