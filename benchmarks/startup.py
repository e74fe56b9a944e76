"""From `smelt train` to the first step of a 12M model, on top of `import torch`, beside transformers' Trainer.

Data and tokenizer are ready and the evaluation before the first step is empty; nothing is compiled.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from common import main, row

GOAL = 2.0  # seconds
MODEL = {"hidden": 384, "layers": 6, "heads": 6, "kv_heads": 2, "width": 1024, "vocab": 8192, "sequence": 512}
RECIPE = """\
name: data
corpus: {sources: {docs: {read: {kind: python-docs}}}}
tokenizer: {train: {vocab: 8Ki, sample_bytes: 1M}}
dataset: {span: 512}
model: {hidden: 384, layers: 6, attention: {heads: 6, kv_heads: 2}, feedforward: {width: 1024}}
train:
  sequence: 512
  batch_tokens: 4096
  precision: fp32
  stages: [{name: only, steps: 1, mixture: {docs: 1}}]
evals: {tasks: [], validation_bytes: 1}
infra: {device: cpu, compile: false}
"""
# What a Trainer user starts: the same layout, batches at random, up to the moment in which the first step begins.
TRAINER = """\
import time
import torch
from torch.utils.data import TensorDataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

class Begin(TrainerCallback):
    def on_step_begin(self, arguments, state, control, **rest):
        print(time.time(), flush=True)
        control.should_training_stop = True

config = LlamaConfig(vocab_size={vocab}, hidden_size={hidden}, num_hidden_layers={layers}, num_attention_heads={heads},
                     num_key_value_heads={kv_heads}, intermediate_size={width}, tie_word_embeddings=True)
rows = [dict(input_ids=row, labels=row) for row in torch.randint({vocab}, (8, {sequence}))]
arguments = TrainingArguments("scratch", max_steps=1, use_cpu=True, report_to="none", save_strategy="no",
                              per_device_train_batch_size=8, disable_tqdm=True)
Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, callbacks=[Begin()]).train()
"""


def measure(quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "recipe.yaml").write_text(RECIPE)
        subprocess.run(_smelt("data", "build"), cwd=folder, check=True, capture_output=True)
        cases = {"torch": _torch, "smelt": _smelt_start, "transformers.Trainer": _trainer_start}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(2 if quick else 6):
            for name, case in cases.items():
                seconds[name].append(case(folder, turn))
    # The first turn reads everything from the disk.
    took = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    ours, trainer = (took[name] - took["torch"] for name in ("smelt", "transformers.Trainer"))
    return [
        row("start of training, less import torch: seconds allowed", "s", ours, {"goal": GOAL}, GOAL / ours, 1.0),
        row("start of training, less import torch", "s", ours, {"transformers.Trainer": trainer}, trainer / ours, 1.0),
    ]


def _torch(folder: Path, turn: int) -> float:
    start = time.time()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.time() - start


def _smelt_start(folder: Path, turn: int) -> float:
    """Until the stage begins, which is when the first batch is there and its step starts."""
    start = time.time()
    subprocess.run(_smelt("train", f"name=turn-{turn}"), cwd=folder, check=True, capture_output=True)
    events = (folder / "runs" / f"turn-{turn}" / "events.jsonl").read_text().splitlines()
    begin = next(row["time"] for row in map(json.loads, events) if row["kind"] == "stage")
    return datetime.fromisoformat(begin).timestamp() - start


def _trainer_start(folder: Path, turn: int) -> float:
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", TRAINER.format(**MODEL)], cwd=folder, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0]) - start


def _smelt(*words: str) -> list[str]:
    verb = words if len(words) > 1 and words[0] == "data" else words[:1]
    return [sys.executable, "-m", "smelt.cli.main", *verb, "recipe.yaml", *words[len(verb) :]]


if __name__ == "__main__":
    main(measure)
