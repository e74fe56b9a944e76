"""Training on one GPU: tokens a second and peak memory of the playbook's 1B baseline and of SmolLM3-3B.

Whole optimizer steps of real size, sequence 4096, vocabulary 128,256: ours in bfloat16 and in fp8, beside the
`transformers` model of the same shape, compiled, in a plain loop with PyTorch's fused AdamW. The playbook's authors had
42,000 tokens a second and GPU for the 1B model, 14,000 for the 3B. The last rows say that compiling and fp8 do not
change what is learnt. `python benchmarks/gpu/train.py [--quick] --json OUT`
"""

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import main, medians, row

from smelt.dataset.batches import Batch
from smelt.marathon.assemble import make_optimizer
from smelt.parallel.engine import Engine, build_engine
from smelt.parallel.fp8 import check_fp8, multiply_in_fp8
from smelt.parallel.world import World
from smelt.recipe.load import load_recipe
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.optimizer import AdamW
from smelt.train.step import train_step

ARCHITECTURES = Path(__file__).parents[2] / "recipes" / "architectures"
VOCAB, SEQUENCE, ROWS = 128_256, 4096, 8
LR, STEPS = 3e-4, 40
PRECISIONS = {"bf16": torch.bfloat16, "fp8": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """A model, how it is trained, and what it should reach, in tokens a second."""

    recipe: str
    precision: str
    micro_batch: int
    goal: float

    @property
    def name(self) -> str:
        """As the row calls it."""
        return f"{self.recipe}, {self.precision}"


CASES = (
    Case("llama-3.2-1b", "bf16", 2, 55_000),
    Case("llama-3.2-1b", "fp8", 2, 70_000),
    Case("smollm3-3b", "bf16", 1, 20_000),
)


def batches(device: torch.device, vocab: int = VOCAB, rows: int = ROWS, sequence: int = SEQUENCE) -> Iterator[Batch]:
    """Rows in which a token is a function of the one before it, mostly: something can be learnt."""
    generator = torch.Generator().manual_seed(0)
    following = torch.randperm(vocab, generator=generator)
    while True:
        tokens = torch.randint(0, vocab, (rows, sequence + 1), generator=generator)
        for place in range(1, sequence + 1, 2):
            tokens[:, place] = following[tokens[:, place - 1] % 1024]
        inputs, targets = tokens[:, :-1].contiguous().to(device), tokens[:, 1:].contiguous().to(device)
        yield Batch(inputs, targets, None, torch.zeros(rows, dtype=torch.int64, device=device))


def ours(config: Model, case: Case, device: torch.device, compile: bool = True, vocab: int = VOCAB) -> Engine:
    """The engine as a run has it."""
    infra = Infra(device=device.type, micro_batch=case.micro_batch, compile=compile)
    engine = build_engine(config, vocab, PRECISIONS[case.precision], 0, infra, World.single(device))
    if case.precision == "fp8":
        check_fp8(device)
        multiply_in_fp8(engine.parts)
    return engine


def stepper(engine: Engine, case: Case, source: Iterator[Batch], vocab: int = VOCAB) -> Callable[[], torch.Tensor]:
    """One optimizer step; returns its mean loss, on the device."""
    optimizer = make_optimizer(engine, AdamW(lr=LR), vocab)

    def step() -> torch.Tensor:
        batch = next(source)
        result = train_step(engine, optimizer, batch, lr=LR, clip=1.0, micro_batch=case.micro_batch, sources=1)
        return result.loss_sums.sum() / result.token_counts.sum()

    return step


def peer(config: Model, case: Case, source: Iterator[Batch], device: torch.device) -> Callable[[], torch.Tensor]:
    """The same shape in `transformers`: bfloat16 weights, its SDPA attention, compiled, fused AdamW."""
    from transformers import AutoConfig, AutoModelForCausalLM

    attention, wide = config.attention, config.feedforward
    shape = AutoConfig.for_model(
        "llama",
        vocab_size=VOCAB,
        hidden_size=config.hidden,
        intermediate_size=wide.width,
        num_hidden_layers=config.layers,
        num_attention_heads=attention.heads,
        num_key_value_heads=attention.kv_heads,
        max_position_embeddings=SEQUENCE,
        tie_word_embeddings=config.tie_embeddings,
    )
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16, attn_implementation="sdpa").to(device).train()
    compiled, optimizer = torch.compile(model), torch.optim.AdamW(model.parameters(), lr=LR, fused=True)

    def step() -> torch.Tensor:
        batch, total = next(source), torch.zeros((), device=device)
        parts = range(0, len(batch.tokens), case.micro_batch)
        for first in parts:
            rows = batch.tokens[first : first + case.micro_batch]
            loss = compiled(input_ids=rows, labels=rows, use_cache=False).loss / len(parts)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def measured(case: Case, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Speed and peak memory of one case, and of the peer in turns with it."""
    config: Model = load_recipe(ARCHITECTURES / f"{case.recipe}.yaml").section("model")
    source = batches(device)
    torch.cuda.reset_peak_memory_stats(device)
    mine = stepper(ours(config, case, device), case, source)
    for _ in range(3):
        mine()
    torch.cuda.synchronize()
    memory = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    theirs = peer(config, case, source, device)
    for _ in range(3):
        theirs()
    torch.cuda.synchronize()
    peers_memory = (torch.cuda.max_memory_allocated(device) - before) / 2**30
    seconds = medians({"ours": _waited(mine), "transformers": _waited(theirs)}, rounds)
    rates = {name: ROWS * SEQUENCE / each for name, each in seconds.items()}
    rate, peers = rates["ours"], {"transformers compiled": rates["transformers"]}
    return [
        row(case.name, "tokens/s", rate, {**peers, "goal": case.goal}, rate / case.goal, 1.0),
        row(f"{case.name}, against transformers compiled", "tokens/s", rate, peers, rate / rates["transformers"], 1.0),
        row(
            f"{case.name}, peak memory",
            "GiB",
            memory,
            {"transformers compiled": peers_memory},
            peers_memory / memory,
            0,
        ),
    ]


def curves(rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Losses of the 1B model, compiled and in fp8, against eager bfloat16: the same batches, the same weights."""
    config: Model = load_recipe(ARCHITECTURES / "llama-3.2-1b.yaml").section("model")
    plain, low = CASES[0], CASES[1]
    kinds = {"eager": (plain, False), "compiled": (plain, True), "fp8": (low, True)}
    found = {}
    for name, (case, compile) in kinds.items():
        step = stepper(ours(config, case, device, compile), case, batches(device))
        found[name] = torch.stack([step() for _ in range(STEPS)])
        _free()
    rows = []
    for name, tolerance in (("compiled", 0.01), ("fp8", 0.03)):
        apart = ((found[name] - found["eager"]).abs() / found["eager"]).mean().item()
        rows.append(row(f"loss over {STEPS} steps, {name}", "relative", apart, {"eager": 0.0}, tolerance / apart, 1.0))
    return rows


def _waited(step: Callable[[], torch.Tensor]) -> Callable[[], None]:
    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


def _free() -> None:
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()


def measure(quick: bool) -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu/train.py: needs a CUDA device, and none is visible")
    device, rounds, rows = torch.device("cuda"), 5 if quick else 11, []
    for case in CASES:
        rows += measured(case, rounds, device)
        _free()
    return rows + curves(rounds, device)


if __name__ == "__main__":
    main(measure)
