"""Groups by name, and AdamW against a plain reference."""

import pytest
import torch
from torch import nn

from smelt.errors import InputError
from smelt.model.decoder import Decoder
from smelt.optim.groups import parameter_groups
from smelt.optim.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.train import AdamW


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"embedding": nn.Embedding(5, 4), "layer": nn.Linear(4, 3, bias=False), "norm": nn.RMSNorm(4)})


def test_embeddings_and_norms_do_not_decay() -> None:
    """ARCH-16 (X): a step with zero gradient leaves the excluded parameters exactly as they were."""
    network = model()
    groups = {group["name"]: group for group in parameter_groups(network, AdamW())}
    assert groups["decay"]["names"] == ["layer.weight"] and groups["decay"]["weight_decay"] == 0.1
    assert groups["no_decay"]["names"] == ["embedding.weight", "norm.weight"]
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = build_optimizer(network, AdamW(lr=0.1))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(network.named_parameters())
    assert torch.equal(after["embedding.weight"], before["embedding.weight"])
    assert torch.equal(after["norm.weight"], before["norm.weight"])
    assert torch.allclose(after["layer.weight"], before["layer.weight"] * (1 - 0.1 * 0.1))


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="'embeding' is part of no parameter's name"):
        parameter_groups(model(), AdamW(no_decay=("embeding",)))


def test_adamw_follows_the_published_update_for_100_steps() -> None:
    """OPT-01."""
    section = AdamW(lr=1e-2)
    network = model()
    optimizer = build_optimizer(network, section)
    x = network["layer"].weight.detach().double().clone()
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    beta1, beta2 = section.betas
    generator = torch.Generator().manual_seed(1)
    for t in range(1, 101):
        gradient = torch.randn(x.shape, generator=generator)
        network["layer"].weight.grad = gradient.clone()
        optimizer.step()
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient.double() ** 2
        x = x * (1 - section.lr * section.weight_decay)
        x = x - section.lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + section.eps)
    assert torch.allclose(network["layer"].weight.double(), x, atol=1e-6, rtol=0)


def test_saved_state_continues_bit_for_bit() -> None:
    def steps(network: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    straight, halted = model(), model()
    first, second = build_optimizer(straight, AdamW()), build_optimizer(halted, AdamW())
    steps(straight, first, range(6))
    steps(halted, second, range(3))
    resumed = build_optimizer(halted, AdamW())
    load_optimizer_tensors(resumed, optimizer_tensors(second))
    steps(halted, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), halted.parameters(), strict=True))


def test_under_mup_matrices_learn_slower_with_the_width_and_decay_as_before() -> None:
    """ARCH-18: Adam's table of Yang et al. 2022; lr * weight_decay stays what was tuned at the base width."""
    section = Model.model_validate(
        {
            "hidden": 32,
            "layers": 1,
            "attention": {"heads": 4, "kv_heads": 2},
            "feedforward": {"kind": "moe", "experts": 4, "top_k": 2, "width": 8},
            "tie_embeddings": False,
            "init": {"kind": "mup", "base_hidden": 8},
        }
    )
    optimizer = build_optimizer(Decoder(section, 61), AdamW(no_decay=("embedding", "norm", "router")))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: (group["lr_factor"], group["weight_decay"]) for name, group in groups.items()} == {
        "decay": (1.0, 0.1),
        "no_decay": (1.0, 0.0),
        "decay x 0.25": (0.25, pytest.approx(0.4)),
        "no_decay x 0.25": (0.25, 0.0),
    }
    assert groups["decay"]["names"] == ["head.weight"]
    assert groups["no_decay x 0.25"]["names"] == ["layers.0.feedforward.router.weight"]
    assert groups["no_decay"]["names"][0] == "embedding.weight"
    assert "layers.0.feedforward.experts.up" in groups["decay x 0.25"]["names"]
