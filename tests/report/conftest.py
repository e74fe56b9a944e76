"""A run directory as a small lifecycle leaves it: two stages, three sources, a restart, one stage of post-training."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

STEPS, BATCH, SOURCES = 600, 32_768, ("python-docs", "python-source", "arithmetic")
FLOOR = {"python-docs": 2.9, "python-source": 1.9, "arithmetic": 0.62}
BYTES_A_TOKEN = {"python-docs": 3.6, "python-source": 3.2, "arithmetic": 1.9}
BIGRAM = {"python-docs": 2.31, "python-source": 1.98, "arithmetic": 1.41}
RECIPE = """\
name: lifecycle-demo
seed: 7
corpus:
  sources:
    python-docs:
      read: {kind: python-docs}
    python-source:
      read: {kind: python-source}
    arithmetic:
      read: {kind: arithmetic, documents: 60000}
  validation_fraction: 0.02
tokenizer:
  train: {vocab: 4096, sample_bytes: 20000000}
model:
  hidden: 192
  layers: 6
  attention: {kind: gqa, heads: 6, kv_heads: 2}
  position: {kind: rope, theta: 50000.0}
  feedforward: {kind: swiglu, width: 512}
  tie_embeddings: true
train:
  sequence: 512
  batch_tokens: 32768
  optimizer: {kind: adamw, lr: 2.0e-3, betas: [0.9, 0.95], weight_decay: 0.1}
  schedule: {kind: wsd, warmup_steps: 30, decay_fraction: 0.3}
  stages:
  - name: stable
    steps: 420
    mixture: {python-docs: 0.4, python-source: 0.4, arithmetic: 0.2}
  - name: decay
    steps: 180
    mixture: {python-docs: 0.2, python-source: 0.2, arithmetic: 0.6}
evals:
  tasks: [addition, subtraction, words, blimp-lite]
  every_steps: 150
posttrain:
  stages:
  - kind: sft
    name: sft
    data: {kind: instructions, examples: 20000}
    lr: 1.0e-4
  tasks: [addition, subtraction, words]
infra:
  device: cpu
  micro_batch: 8
  price_per_hour: 0.35
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run."""
    return write_run(tmp_path / "runs" / "lifecycle-demo")


def write_run(folder: Path) -> Path:
    """Write every file of a run; the same bytes each time."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    rows = [_row(step, life=0, draw=draw) for step in steps_logged(1, 330)]
    rows += [_row(step, life=1, draw=draw) for step in steps_logged(302, STEPS)]
    write_lines(folder / "metrics.jsonl", rows)
    write_lines(folder / "events.jsonl", _events())
    for step in (0, 150, 300, 450, 600):
        write_json(folder / "evals" / f"step-{step:08d}.json", _evaluation(step))
    sft = folder / "posttrain" / "sft"
    losses = [(step, 0.35 + 1.9 * math.exp(-step / 22) + draw.gauss(0, 0.03)) for step in range(1, 158)]
    write_lines(sft / "metrics.jsonl", [{"step": step, "loss": loss, "lr": 1e-4} for step, loss in losses])
    write_json(sft / "report.json", {"examples": 20_000, "dropped": 12, "seconds": 96.2, "trained_tokens": 412_330})
    write_json(sft / "eval.json", {**_evaluation(600, tuned=True), "model": "sft"})
    write_json(folder / "conversations.json", CONVERSATIONS)
    write_json(folder / "env.json", ENV)
    write_json(folder / "timings.json", TIMINGS)
    return folder


def steps_logged(first: int, last: int) -> list[int]:
    """Steps that a run logging every second step writes."""
    return [step for step in range(first, last + 1) if step % 2 == 0 or step == 1]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, value: Any) -> None:
    """One JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _loss(source: str, step: int) -> float:
    start = math.log(4224)
    fall = math.exp(-((step / 18) ** 0.62))
    decay = 0.12 * max(0, step - 420) / 180
    return FLOOR[source] * (1 - decay) + (start - FLOOR[source]) * fall


def _row(step: int, life: int, draw: random.Random) -> dict[str, Any]:
    weights = (0.4, 0.4, 0.2) if step <= 420 else (0.2, 0.2, 0.6)
    losses = {source: _loss(source, step) * (1 + draw.gauss(0, 0.02)) for source in SOURCES}
    forward, optimizer, data = 0.86 + draw.gauss(0, 0.02), 0.031, abs(draw.gauss(0, 0.004))
    seconds = forward + optimizer + data + 0.012
    return {
        "step": step,
        "tokens": step * BATCH,
        "stage": "stable" if step <= 420 else "decay",
        "loss": sum(weight * losses[source] for weight, source in zip(weights, SOURCES, strict=True)),
        **{f"loss_{source}": loss for source, loss in losses.items()},
        "grad_norm": 0.4 + 2.5 * math.exp(-step / 25) + abs(draw.gauss(0, 0.05)),
        "lr": 2e-3 * min(1.0, step / 30, max(0.0, (600 - step) / 180)),
        "tokens_per_second": BATCH / seconds,
        "step_seconds": seconds,
        "data_seconds": data,
        "forward_backward_seconds": forward,
        "optimizer_seconds": optimizer,
        "memory_gib": 1.84,
        "life": life,
        "seconds": 0.92 * (step - 300 * life),
    }


def _consumed(step: int) -> dict[str, Any]:
    early, late = min(step, 420), max(0, step - 420)
    shares = {"python-docs": (0.4, 0.2), "python-source": (0.4, 0.2), "arithmetic": (0.2, 0.6)}
    tokens = {source: round(BATCH * (early * a + late * b)) for source, (a, b) in shares.items()}
    return {source: {"tokens": count, "epochs": count // 6_000_000, "skipped": 0} for source, count in tokens.items()}


def _events() -> list[dict[str, Any]]:
    kinds = [
        ("06:02:11", "start", 0, {}),
        ("06:02:12", "stage", 0, {"stage": "stable"}),
        ("06:06:50", "checkpoint", 300, {"checkpoint_seconds": 0.61, "consumed": _consumed(300)}),
        ("06:09:40", "resume", 300, {"life": 1, "checkpoint": "step-00000300"}),
        ("06:11:31", "checkpoint", 420, {"checkpoint_seconds": 0.59, "consumed": _consumed(420)}),
        ("06:11:31", "stage", 420, {"stage": "decay"}),
        ("06:14:17", "checkpoint", 600, {"checkpoint_seconds": 0.6, "consumed": _consumed(600)}),
        ("06:14:18", "done", 600, {}),
    ]
    return [
        {"time": f"2026-11-02T{time}.120+00:00", "kind": kind, "step": step, **more} for time, kind, step, more in kinds
    ]


def _evaluation(step: int, tuned: bool = False) -> dict[str, Any]:
    reach = {"addition": (0.0, 0.31, 0.93), "subtraction": (0.0, 0.22, 0.885), "words": (0.0, 0.08, 0.41)}
    tasks = {}
    for task, (chance, base, best) in reach.items():
        score = best if tuned else base * max(0.0, (step - 100) / 500) ** 1.5
        tasks[task] = _task("exact_match", score, chance)
    if not tuned:
        tasks["blimp-lite"] = _task("accuracy", 0.5 + 0.19 * (1 - math.exp(-step / 200)), 0.5)
    validation = {}
    for source in SOURCES:
        loss = _loss(source, step) * 1.01
        bits = loss / math.log(2) / BYTES_A_TOKEN[source]
        validation[source] = {
            "bits_per_byte": bits,
            "loss": loss,
            "bigram_bits_per_byte": BIGRAM[source],
            "bytes": 412_000,
            "documents": 312,
        }
    samples = [
        {
            "prompt": "What is 47 + 38?",
            "output": "7 + 8 = 15, carry 1. 4 + 3 + 1 = 8. 85",
            "expected": "85",
            "correct": True,
        },
        {"prompt": "Compute 90 plus 14.", "output": "0 + 4 = 4. 9 + 1 = 11. 114", "expected": "104", "correct": False},
    ]
    return {
        "step": step,
        "tokens": step * BATCH,
        "model": "base",
        "validation": validation,
        "tasks": tasks,
        "samples": {"addition": samples},
        "seconds": 11.4,
    }


def _task(metric: str, score: float, chance: float) -> dict[str, Any]:
    error = math.sqrt(score * (1 - score) / 200)
    return {"metric": metric, "score": score, "stderr": error, "n": 200, "chance": chance, "formulation": "generate"}


CONVERSATIONS = [
    {
        "prompt": "What is 23 + 59?",
        "base": "What is 23 + 60? = ? Compute 23 plus 59.\nAnswer: 3 + 9",
        "tuned": {"sft": "3 + 9 = 12, write 2, carry 1. 2 + 5 + 1 = 8.\nThe answer is 82."},
    },
    {
        "prompt": "Ana has 12 apples. She buys 7 more and gives 4 away. How many apples has she now?",
        "base": "def apples(self):\n    return self._apples\n",
        "tuned": {"sft": "12 + 7 = 19. 19 - 4 = 15.\nAna has 15 apples."},
    },
    {
        "prompt": "Reverse the word 'ingot'.",
        "base": "The word 'ingot' is a string, and the method returns a copy of the string",
        "tuned": {"sft": "togni"},
    },
]
ENV = {
    "versions": {"python": "3.11.9", "torch": "2.13.0", "numpy": "2.3.1", "smelt": "0.1.0"},
    "git": {"commit": "4b1f0c2e9d", "dirty": False},
    "hardware": {"device": "cpu", "cpu": "16 cores", "memory_gib": 64},
    "command": "smelt run recipes/lifecycle-demo.yaml",
}
TIMINGS = {
    "corpus": {"seconds": 21.4, "skipped": False},
    "tokenizer": {"seconds": 6.1, "skipped": True},
    "shards": {"seconds": 9.8, "skipped": False},
    "train": {"seconds": 276.0, "skipped": False},
    "posttrain": {"seconds": 118.9, "skipped": False},
    "export": {"seconds": 0.7, "skipped": False},
}
