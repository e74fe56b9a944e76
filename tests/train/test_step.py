"""The step against a plain PyTorch loop over `transformers`, and against itself in other micro-batches."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from smelt.dataset.batches import BatchSource
from smelt.dataset.shards import open_sources
from smelt.lifecycle.artifacts import prepare
from smelt.model.decoder import Decoder
from smelt.model.families import export_model
from smelt.model.init import initialise
from smelt.optim.optimizers import build_optimizer
from smelt.optim.schedules import learning_rate
from smelt.parallel.engine import Engine
from smelt.parallel.world import World
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.train.peak import stated_flops
from smelt.train.step import StepResult, train_step

CPU = torch.device("cpu")


def batches(recipe: Recipe, project: Path) -> BatchSource:
    ready = prepare(recipe, project)
    return BatchSource(recipe, open_sources(recipe, ready.shards, ready.tokenizer), ready.tokenizer.eos)


def decoder(recipe: Recipe) -> Decoder:
    model = Decoder(recipe.section("model"), 512)
    initialise(model, recipe.seed)
    return model


def run(recipe: Recipe, source: BatchSource, model: Decoder, steps: int, micro_batch: int) -> list[StepResult]:
    train = recipe.section("train")
    optimizer = build_optimizer(model, train.optimizer)
    engine, plan = Engine(model, World.single(CPU)), Plan(recipe)
    return [
        train_step(
            engine,
            optimizer,
            source.batch(step),
            lr=learning_rate(plan, step),
            clip=train.clip,
            micro_batch=micro_batch,
            sources=2,
        )
        for step in range(steps)
    ]


def mean(result: StepResult) -> float:
    return float(result.loss_sums.sum() / result.token_counts.sum())


def test_losses_equal_a_plain_loop_over_transformers(workshop, tmp_path: Path) -> None:
    """Losses of 12 steps against `transformers` and `torch.optim.AdamW`, document by document."""
    transformers = pytest.importorskip("transformers")
    recipe = workshop.load("plain")
    train, source, model = recipe.section("train"), batches(recipe, workshop.project), decoder(recipe)
    export_model(model, tmp_path / "hf", context=64)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    named = dict(peer.named_parameters())
    plain = [name for name in named if "norm" in name or "embed" in name]
    optimizer = torch.optim.AdamW(
        [
            {"params": [named[name] for name in named if name not in plain], "weight_decay": 0.1},
            {"params": [named[name] for name in plain], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    for step, result in enumerate(run(recipe, source, model, 12, micro_batch=3)):
        batch = source.batch(step)
        total, count = torch.zeros(()), int((batch.targets >= 0).sum())
        for row in range(len(batch.tokens)):
            bounds = [*torch.unique(batch.starts[row]).tolist(), batch.tokens.shape[1]]
            for first, last in pairwise(bounds):
                logits = peer(batch.tokens[row : row + 1, first:last]).logits[0]
                total = total + F.cross_entropy(logits, batch.targets[row, first:last], reduction="sum")
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), train.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(Plan(recipe), step)
        optimizer.step()
        optimizer.zero_grad()
        assert mean(result) == pytest.approx(total.item() / count, abs=1e-4)


def test_the_micro_batch_changes_nothing_but_rounding(workshop) -> None:
    """ABL-14 (accumulation): 10 steps with 1, 3 and 8 windows at a time, normalised by valid tokens of the step."""
    recipe = workshop.load("micro")
    source = batches(recipe, workshop.project)
    losses = [[mean(each) for each in run(recipe, source, decoder(recipe), 10, size)] for size in (1, 3, 8)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_losses_by_source_add_up_to_the_whole(workshop) -> None:
    recipe = workshop.load("sources")
    source = batches(recipe, workshop.project)
    result = run(recipe, source, decoder(recipe), 1, 8)[0]
    assert int(result.token_counts.sum()) == int((source.batch(0).targets >= 0).sum())
    assert (result.loss_sums > 0).all()


def test_bf16_compute_keeps_weights_gradients_and_optimizer_state_in_float32(workshop) -> None:
    """OPT-16: an update far below bfloat16's resolution is not lost."""
    recipe = workshop.load("bf16", "train.optimizer.lr=1e-6", "train.schedule.warmup_steps=0")
    model = Decoder(recipe.section("model"), 512, dtype=torch.bfloat16)
    initialise(model, 0)
    optimizer = build_optimizer(model, recipe.section("train").optimizer)
    before = model.layers[0].attention.q.weight.detach().clone()
    train_step(
        Engine(model, World.single(CPU)),
        optimizer,
        batches(recipe, workshop.project).batch(0),
        lr=1e-6,
        clip=1.0,
        micro_batch=8,
        sources=2,
    )
    after = model.layers[0].attention.q.weight.detach()
    assert not torch.equal(before, after) and after.dtype == torch.float32
    assert (before.bfloat16() == after.bfloat16()).float().mean() > 0.9
    assert all(value.dtype == torch.float32 for state in optimizer.state.values() for value in state.values())


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA GB200", 2250),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A40", 150),
        ("NVIDIA RTX A4000", None),
    ],
)
def test_a_gpu_is_known_by_whole_words_of_its_name(name: str, tera: float | None) -> None:
    assert stated_flops(name) == (None if tera is None else tera * 1e12)


def test_under_mup_each_group_learns_at_its_own_share_of_the_rate(workshop) -> None:
    """ARCH-18: matrices at lr * base_hidden / hidden; what the model measures comes back with the step."""
    hidden = workshop.load("plain").section("model").hidden
    recipe = workshop.load("mup", f"model.init={{kind: mup, base_hidden: {hidden // 4}}}", "model.z_loss=1e-3")
    model = decoder(recipe)
    optimizer = build_optimizer(model, recipe.section("train").optimizer)
    source = batches(recipe, workshop.project)
    engine = Engine(model, World.single(CPU))
    result = train_step(engine, optimizer, source.batch(0), lr=1e-3, clip=1.0, micro_batch=3, sources=2)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates["layers.0.attention.q.weight"] == pytest.approx(2.5e-4)
    assert rates["embedding.weight"] == rates["norm.weight"] == 1e-3
    assert result.means["z_loss"].item() == pytest.approx(1e-3 * result.means["log_z_abs"].item() ** 2, rel=0.1)
