"""Whole training loops, side by side: ours against `transformers.Trainer` and litgpt, on the same model and tokens.

Hidden 384, 6 layers, vocabulary 8192, 8 rows of 512 tokens a step, bfloat16. Every loop runs in a process of its own
and takes a few steps at a time, turn by turn. litgpt gets an environment of its own under ~/.cache/smelt. The last row
sets the model's FLOPs a second beside those of plain matrix products of the same shapes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import main, row

from smelt.dataset.batches import BatchSource
from smelt.dataset.shards import open_sources
from smelt.lifecycle.artifacts import prepare
from smelt.recipe.account import flops_per_token
from smelt.recipe.load import load_recipe

ROWS, SEQUENCE, VOCAB = 8, 512, 8192
HIDDEN, LAYERS, HEADS, KV_HEADS, WIDTH = 384, 6, 6, 2, 1024
TOKENS = ROWS * SEQUENCE
LOOPS = Path(__file__).parent / "loops"
LITGPT = Path.home() / ".cache" / "smelt" / "litgpt"
DATA = 64  # batches that the peers go round in
EAGER, COMPILED, LIT, PRODUCTS = 2.0, 1.1, 1.25, 0.5

RECIPE = f"""\
name: benchmark
corpus: {{sources: {{docs: {{read: {{kind: python-docs}}}}}}}}
tokenizer: {{train: {{vocab: {VOCAB}}}}}
model:
  hidden: {HIDDEN}
  layers: {LAYERS}
  attention: {{heads: {HEADS}, kv_heads: {KV_HEADS}}}
  feedforward: {{width: {WIDTH}}}
  tie_embeddings: true
train:
  sequence: {SEQUENCE}
  batch_tokens: {TOKENS}
  document_mask: false
  precision: bf16
  schedule: {{kind: wsd, warmup_steps: 10}}
  stages: [{{name: all, steps: 100k, mixture: {{docs: 1}}}}]
  checkpoints: {{every_steps: 1M}}
infra: {{compile: false, micro_batch: auto}}
"""
LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": SEQUENCE,
    "tie_word_embeddings": True,
}
LITGPT_CONFIG = {
    "name": "benchmark",
    "block_size": SEQUENCE,
    "vocab_size": VOCAB,
    "padded_vocab_size": VOCAB,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_query_groups": KV_HEADS,
    "n_embd": HIDDEN,
    "intermediate_size": WIDTH,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
}
# The Trainer's settings that can win without a compiler: how rows are grouped, and what weights are kept in.
WHOLE = {"per_device_train_batch_size": ROWS, "max_steps": 1 << 30}
TRAINERS: dict[str, dict[str, Any]] = {
    "transformers bf16": {**WHOLE, "bf16": True},
    "transformers bf16 weights": {**WHOLE, "bf16_weights": True},
    "transformers bf16, 2 passes": {
        **WHOLE,
        "bf16": True,
        "per_device_train_batch_size": ROWS // 2,
        "gradient_accumulation_steps": 2,
    },
    "transformers bf16 compiled": {**WHOLE, "bf16": True, "torch_compile": True},
}


class Loop:
    """A process that trains when told to."""

    def __init__(self, python: str, script: str, *arguments: str) -> None:
        # A peer's environment must not see this one's packages.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process lives
        self._process = subprocess.Popen(
            [python, str(LOOPS / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def steps(self, count: int) -> float:
        """Seconds of `count` steps; raises RuntimeError with the end of its log when the loop has died."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None and pipe_out is not None
        try:
            pipe_in.write(f"{count}\n")
            pipe_in.flush()
            return float(pipe_out.readline())
        except (ValueError, BrokenPipeError):
            self._log.seek(0)
            raise RuntimeError(f"exit code {self._process.wait()}, {self._log.read()[-2000:]}") from None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def data(project: Path) -> Path:
    """Our shards, and the rows of their first batches for the peers."""
    file = project / "benchmark.yaml"
    file.write_text(RECIPE)
    recipe = load_recipe(file)
    ready = prepare(recipe, project)
    source = BatchSource(recipe, open_sources(recipe, ready.shards, ready.tokenizer), ready.tokenizer.eos)
    batches = [source.batch(step) for step in range(DATA)]
    rows = [torch.cat((batch.tokens, batch.targets[:, -1:]), 1) for batch in batches]
    np.save(project / "rows.npy", torch.cat(rows).numpy().astype(np.uint16))
    return file


def litgpt_python() -> str:
    """The interpreter of litgpt's environment, which is made the first time."""
    python = LITGPT / "bin" / "python"
    if not (LITGPT / "installed").exists():
        venv.create(LITGPT, with_pip=True, clear=True)
        torch_version = torch.__version__.partition("+")[0]
        packages = ["litgpt==0.5.13", f"torch=={torch_version}", "numpy"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (LITGPT / "installed").touch()
    return str(python)


def loops(project: Path, recipe: Path) -> dict[str, Loop]:
    """All of them, each waiting for its first turn."""
    ours = (str(recipe), str(project))
    started = {
        "ours": Loop(sys.executable, "ours.py", *ours, "name=eager"),
        "ours compiled": Loop(sys.executable, "ours.py", *ours, "name=compiled", "infra.compile=true"),
    }
    rows = str(project / "rows.npy")
    for name, settings in TRAINERS.items():
        started[name] = Loop(sys.executable, "trainer.py", rows, json.dumps(LLAMA), json.dumps(settings))
    try:
        started["litgpt"] = Loop(litgpt_python(), "litgpt_loop.py", rows, json.dumps(LITGPT_CONFIG))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"litgpt cannot be installed: {error}", file=sys.stderr)
    return started


def rates(started: dict[str, Loop], rounds: int, steps: int) -> dict[str, float]:
    """Median tokens a second of each loop, taken in turns; a loop that dies is left out, with a word."""
    seconds: dict[str, list[float]] = {name: [] for name in started}
    for turn in range(rounds + 1):
        for name, loop in list(started.items()):
            try:
                taken = loop.steps(steps)
            except RuntimeError as error:
                print(f"{name} died: {error}", file=sys.stderr)
                started.pop(name).end()
                seconds.pop(name)
                continue
            if turn:  # the first turn compiles, and warms up
                seconds[name].append(taken / steps)
            print(f"{name}: {steps * TOKENS / taken:.0f} tokens/s", file=sys.stderr, flush=True)
    return {name: TOKENS / statistics.median(each) for name, each in seconds.items()}


def against(name: str, ours: float, found: Mapping[str, float], peers: Sequence[str], goal: float) -> dict[str, Any]:
    """Ours against the best of some peers; a failing row where none ran."""
    there = {peer: found[peer] for peer in peers if peer in found}
    return row(name, "tokens/s", ours, there, ours / max(there.values()) if there else 0.0, goal)


def product_flops(rounds: int) -> float:
    """FLOP/s of the products of a step in bfloat16, each with both of its gradients, and nothing else."""
    head = HIDDEN // HEADS
    layer = [(HIDDEN, HIDDEN), (HIDDEN, KV_HEADS * head), (HIDDEN, KV_HEADS * head), (HIDDEN, HIDDEN)]
    layer += [(HIDDEN, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)]
    shapes = [*layer * LAYERS, (HIDDEN, VOCAB)]
    tensors = {
        shape: [torch.ones(size, dtype=torch.bfloat16) for size in ((TOKENS, shape[0]), shape, (TOKENS, shape[1]))]
        for shape in set(shapes)
    }
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for shape in shapes:
            x, weight, grad = tensors[shape]
            x @ weight
            grad @ weight.t()
            x.t() @ grad
        times.append(time.perf_counter() - start)
    return sum(6 * TOKENS * a * b for a, b in shapes) / statistics.median(times)


def measure(quick: bool) -> list[dict[str, Any]]:
    rounds, steps = (5, 2) if quick else (9, 3)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        recipe = data(project)
        started = loops(project, recipe)
        try:
            found = rates(started, rounds, steps)
        finally:
            for loop in started.values():
                loop.end()
        peak = product_flops(3 * rounds)
        flops = flops_per_token(load_recipe(recipe).section("model"), VOCAB, SEQUENCE)
    eager = [name for name in TRAINERS if "compiled" not in name]
    best = max(found["ours"], found.get("ours compiled", 0.0))
    return [
        against("Llama 12M, eager against eager", found["ours"], found, eager, EAGER),
        against("Llama 12M, best against eager", best, found, eager, EAGER),
        against("Llama 12M, against compiled", best, found, ["transformers bf16 compiled"], COMPILED),
        against("Llama 12M, against litgpt", best, found, ["litgpt"], LIT),
        row(
            "FLOP/s over those of plain products",
            "GFLOP/s",
            best * flops / 1e9,
            {"products": peak / 1e9},
            best * flops / peak,
            PRODUCTS,
        ),
    ]


if __name__ == "__main__":
    main(measure)
