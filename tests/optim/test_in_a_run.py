"""Optimizers, skipped steps and averages in a real run, which resumes bit for bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.train.checkpoints import checkpoints


def trained(workshop: Any, name: str, *changes: str, resume: bool = False) -> Path:
    run: Path = workshop.project / "runs" / name
    recipe = workshop.load(name, "evals.tasks=[]", "train.checkpoints={every_steps: 5, keep: 9}", *changes)
    pretrain(recipe, workshop.project, resume=resume, steps=Steps(run / "timings.json", lambda text: None))
    return run


@pytest.mark.parametrize("kind", ["muon", "torch.optim:NAdam"])
def test_a_run_that_skips_and_averages_resumes_bit_for_bit(workshop, kind: str) -> None:
    """MARA-15; what was skipped is counted across lives."""
    changes = (
        f"train.optimizer={{kind: '{kind}', lr: 3e-3}}",
        "train.skip_step={sigmas: 1, window: 6, patience: 3}",
        "train.averaging={kind: ema, decay: 0.9}",
    )
    straight, halted = (trained(workshop, f"{kind[-4:]}-{way}", *changes) for way in ("straight", "halted"))
    for checkpoint in checkpoints(halted)[-2:]:
        shutil.rmtree(checkpoint)
    trained(workshop, halted.name, *changes, resume=True)
    last = json.loads((halted / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["skipped_steps"] < 20
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(checkpoints(run)[-1] / file) for run in (straight, halted))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
