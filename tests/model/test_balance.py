"""Balance of experts: what the losses say, what they count, and that both methods mend a collapsed router."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from small_models import decoder, generator, section, tokens
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from smelt.model.balance import after_step, imbalance, metrics
from smelt.model.context import Context
from smelt.model.moe import MixtureOfExperts
from smelt.model.weights import load_weights, save_weights

EXPERTS = {"kind": "moe", "experts": 4, "top_k": 1, "width": 16, "normalize": False}
LOSS = {**EXPERTS, "balance": {"kind": "loss", "weight": 0.5}, "z_loss": 0.25}
BIAS = {**EXPERTS, "balance": {"kind": "bias", "rate": 0.125}}


@pytest.fixture(scope="module")
def study() -> ModuleType:
    """`studies/expert_balance.py`."""
    path = Path(__file__).parents[2] / "studies" / "expert_balance.py"
    spec = importlib.util.spec_from_file_location("expert_balance", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layer(fields: dict[str, Any]) -> MixtureOfExperts:
    module = decoder(section(layers=1, feedforward=fields)).layers[0].feedforward.train()
    if module.balance.bias is not None:
        module.balance.bias.data.zero_()
    return module


def run(module: MixtureOfExperts, x: Tensor) -> Tensor | None:
    """What a micro-batch adds to its tokens' losses."""
    return module(x, Context(torch.zeros(x.shape[:2], dtype=torch.int64), None))[1]


def rows(batch: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(batch, 8, 32, generator=generator(seed))


def test_the_loss_is_weight_over_experts_in_balance_and_weight_in_collapse() -> None:
    """ARCH-22: sum_i f_i P_i is 1/N when even, and 1 when one expert has every choice with certainty."""
    even, all_to_one = torch.full((16, 8), 1 / 8), torch.eye(8)[torch.zeros(16, dtype=torch.int64)]
    assert imbalance(even, torch.full((8,), 2)).mean().item() == pytest.approx(1 / 8)
    assert imbalance(all_to_one, torch.tensor([16, *[0] * 7])).mean().item() == pytest.approx(1)
    module = layer(LOSS | {"z_loss": 0})
    with torch.no_grad():
        module.router.weight.zero_()
        assert run(module, rows()).mean().item() == pytest.approx(0.5 / 4)
        module.router.weight[2] = 1000 * rows()[0, 0]
        after_step(module)
        assert run(module, rows()[:1, :1]).mean().item() == pytest.approx(0.5)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_its_mean_over_tokens_is_the_formula_with_gradient_through_probabilities_alone(score: str) -> None:
    """ARCH-22: against the formula written out, f a constant."""
    module = layer(LOSS | {"score": score, "top_k": 2})
    x = rows().requires_grad_()
    extra = run(module, x)
    assert extra.shape == (4, 8) and extra.dtype == torch.float32
    logits = x.flatten(0, 1) @ module.router.weight.T
    scores = logits.softmax(1) if score == "softmax" else logits.sigmoid()
    share = torch.bincount(scores.topk(2).indices.flatten(), minlength=4) / (2 * len(scores))
    probability = (scores / scores.sum(1, keepdim=True)).mean(0)
    expected = 0.5 * (share * probability).sum() + 0.25 * logits.exp().sum(1).log().square().mean()
    torch.testing.assert_close(extra.mean(), expected)
    for own, theirs in zip(
        torch.autograd.grad(extra.mean(), [x, module.router.weight]),
        torch.autograd.grad(expected, [x, module.router.weight]),
        strict=True,
    ):
        torch.testing.assert_close(own, theirs)


def test_global_counts_are_those_of_the_step_so_far_and_local_ones_of_the_micro_batch() -> None:
    """ARCH-23: two micro-batches that send their tokens to an expert each."""
    sorted_rows = [row.expand(1, 8, 32) * 100 for row in (rows()[0, 0], rows()[0, 1])]
    module = layer(LOSS | {"z_loss": 0})
    chosen = [int(module.router(x.flatten(0, 1), None).chosen[0, 0]) for x in sorted_rows]
    assert chosen[0] != chosen[1]
    assert [run(module, x).mean().item() for x in sorted_rows] == pytest.approx([0.5, 0.25], rel=1e-3)
    use = after_step(module)[0]
    assert use.load[chosen].tolist() == [2, 2] and use.balance_loss.item() == pytest.approx(0.25, rel=1e-3)
    assert run(module, sorted_rows[1]).mean().item() == pytest.approx(0.5, rel=1e-3)  # a new step
    local = layer(LOSS | {"z_loss": 0, "balance": {"kind": "loss", "weight": 0.5, "scope": "local"}})
    assert [run(local, x).mean().item() for x in sorted_rows] == pytest.approx([0.5, 0.5], rel=1e-3)


def test_counts_of_other_ranks_join_through_the_hook() -> None:
    """ARCH-23: what splits a batch over ranks says how to sum over them; here the other rank did the same."""
    module, alone = layer(BIAS), layer(BIAS)
    module.balance.sum_over_ranks = lambda tensor: tensor + tensor.new_tensor([0, 0, 0, 1000]) * (tensor.ndim > 0)
    for each in (module, alone):
        run(each, rows())
        after_step(each)
    assert module.balance.bias[3] == -0.125 and alone.balance.bias[3] != module.balance.bias[3]


def test_the_bias_moves_against_the_load_and_touches_the_choice_alone() -> None:
    """ARCH-22: by `rate`, down where a load exceeds the mean; weights stay the scores of the chosen experts."""
    module = layer(BIAS)
    run(module, rows())
    load = after_step(module)[0].load
    assert torch.equal(module.balance.bias, 0.125 * (1 - load).sign()) and module.balance.bias.abs().sum() > 0
    x = rows().flatten(0, 1)
    routing = module.router(x, torch.tensor([0.0, 0.0, 10.0, 0.0]))
    assert (routing.chosen == 2).all()
    torch.testing.assert_close(routing.weights, (x @ module.router.weight.T).softmax(1)[:, 2:3])
    assert not module.balance.bias.requires_grad


def test_evaluation_neither_counts_nor_costs() -> None:
    module = layer(LOSS).eval()
    assert run(module, rows()) is None and int(module.balance.counts.sum()) == 0


def test_a_layer_computed_twice_to_spare_memory_counts_once() -> None:
    """The same counts, losses and gradients with activation checkpointing around the layer."""
    modules, gradients = [layer(LOSS), layer(LOSS)], []
    for module, again in zip(modules, (False, True), strict=True):
        for seed in (1, 2):
            x = rows(seed=seed).requires_grad_()
            context = Context(torch.zeros(x.shape[:2], dtype=torch.int64), None)
            out, extra = checkpoint(module, x, context, use_reentrant=False) if again else module(x, context)
            (out.sum() + extra.sum()).backward()
        gradients.append((x.grad, module.router.weight.grad))
    assert torch.equal(modules[0].balance.counts, modules[1].balance.counts)
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)


def test_a_loaded_decoder_has_its_bias_and_fresh_counters(tmp_path: Path) -> None:
    """The bias is a weight like any other: saved, loaded, not trained by the optimizer."""
    model = decoder(section(feedforward=BIAS))
    save_weights(model, tmp_path)
    again = load_weights(tmp_path)
    bias = again.layers[1].feedforward.balance.bias
    assert torch.equal(bias, model.layers[1].feedforward.balance.bias) and not bias.requires_grad
    inputs = tokens(2, 8)
    again.train()(inputs, targets=inputs).sum().backward()
    assert sum(use.load.sum().item() for use in after_step(again)) == pytest.approx(3 * 4)


def test_metrics_name_loads_and_losses() -> None:
    """`metrics.jsonl`: loads by layer, their extremes, and what joined the loss; nothing for a dense model."""
    model = decoder(section(layers=2, feedforward=LOSS)).train()
    assert metrics(after_step(decoder())) == {}
    inputs = tokens(2, 8)
    model(inputs, targets=inputs)
    row = metrics(after_step(model))
    loads = row["expert_load"]
    assert [len(each) for each in loads] == [4, 4] and [sum(each) for each in loads] == pytest.approx([4, 4], abs=0.01)
    assert row["expert_load_max"] == max(max(each) for each in loads)
    assert row["expert_load_min"] == min(min(each) for each in loads)
    assert 2 * 0.5 / 4 <= row["balance_loss"] < 1 and row["router_z_loss"] > 0


def test_training_follows_the_auxiliary_losses_and_reports_the_loss_alone() -> None:
    """Through the decoder: the same losses with and without balancing, other gradients of the router."""
    inputs = tokens(2, 16)
    results = []
    for fields in (EXPERTS, LOSS):
        model = decoder(section(layers=1, feedforward=fields)).train()
        loss = model(inputs, targets=inputs).mean()
        loss.backward()
        results.append((loss.item(), model.layers[0].feedforward.router.weight.grad))
    assert results[0][0] == results[1][0]
    assert (results[0][1] - results[1][1]).abs().max() > 1e-3


def test_both_methods_restore_balance_from_a_collapsed_router(study: ModuleType) -> None:
    """ARCH-22 and ARCH-20: without balancing, two of eight experts keep most of the choices; the loss-free bias brings
    every load within 20 % of uniform, the loss well into its reach; both learn the task better. docs/expert-balance.png
    shows the whole course."""
    loads, errors = {}, {}
    for method, balance in study.METHODS.items():
        load, error = study.train(balance, 200)
        assert load[0, :2].sum() > 7.9
        loads[method], errors[method] = load[-50:].mean(0), error[-50:].mean().item()
    assert loads["no balancing"][:2].sum() > 7
    assert (loads["loss-free bias"] - 1).abs().max() < 0.2
    assert (loads["balancing loss"] - 1).abs().max() < 0.5
    assert max(errors["loss-free bias"], errors["balancing loss"]) < 0.7 * errors["no balancing"]


def test_global_counts_let_experts_specialise_where_micro_batches_are_sorted_by_domain(study: ModuleType) -> None:
    """ARCH-23: micro-batches of one kind of token each. Counted alone, each kind is spread over all experts; counted
    over the step, kinds keep experts of their own, and the task is learnt no worse."""
    local, global_ = (_sorted_training(study, scope) for scope in ("local", "global"))
    assert global_[0] > 2 * local[0] and global_[1] < local[1]


def _sorted_training(study: ModuleType, scope: str, steps: int = 50) -> tuple[float, float]:
    """Bits that a token's expert tells of its kind, and the error, at the last step."""
    task = study.Task(0)
    module = study.collapsed({"kind": "loss", "weight": 1.0, "scope": scope}, task).train()
    torch.nn.init.normal_(module.router.weight, std=0.1, generator=generator(0))
    optimizer = torch.optim.AdamW(module.parameters(), study.LR, weight_decay=0)
    for _ in range(steps):
        total, shares = 0.0, torch.zeros(study.KINDS, study.EXPERTS)
        for kind in torch.randperm(study.KINDS, generator=task.draws).tolist():
            x, target = task.tokens(torch.full((1, 32), kind))
            out, extra = module(x, Context(torch.zeros(x.shape[:2], dtype=torch.int64), None))
            error = (out - target).square().mean() / target.square().mean()
            ((error + extra.mean()) / study.KINDS).backward()
            total += error.item() / study.KINDS
            shares[kind] = module.router(x.flatten(0, 1), None).counts / (32 * study.TOP_K)
        optimizer.step()
        optimizer.zero_grad()
        after_step(module)
    joint = shares / study.KINDS
    return float((joint * (shares / shares.mean(0)).log2()).nansum()), total
