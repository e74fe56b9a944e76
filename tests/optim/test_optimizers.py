"""Each rule against a plain loop of its paper's update, classes by path, and state that goes on bit for bit."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from smelt.errors import InputError
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.optim.averaging import follow
from smelt.optim.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.optimizer import AdamW, AdEMAMix, Lion, Muon, Optimizer, OwnOptimizer
from smelt.recipe.sections.train import Train

SECTIONS = [
    AdamW(),
    Muon(kind="muon"),
    AdEMAMix(kind="ademamix", warmup_steps=5),
    Lion(kind="lion"),
    OwnOptimizer(kind="torch.optim:NAdam"),
    OwnOptimizer(kind="torch.optim:SGD", arguments={"momentum": 0.9}),
]


def model() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"embedding": nn.Embedding(5, 4), "layer": nn.Linear(4, 3, bias=False), "norm": nn.RMSNorm(4)})


def take_steps(network: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    """Steps with gradients that only the seeds decide."""
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


Reference = Callable[[int, Tensor, Tensor, dict[str, Any]], Tensor]  # step from 1, weights, gradient, what is kept


def followed(section: Optimizer, reference: Reference, dtype: torch.dtype = torch.float64) -> None:
    """100 steps of a matrix by the optimizer of `section`, in `dtype`, stay with those of `reference`, in float64."""
    network = model().to(dtype)
    optimizer = build_optimizer(network, section)
    weight = network["layer"].weight
    x, state = weight.detach().double().clone(), {}
    generator = torch.Generator().manual_seed(1)
    for t in range(1, 101):
        gradient = torch.randn(x.shape, generator=generator)
        weight.grad = gradient.to(dtype)
        optimizer.step()
        x = reference(t, x, gradient.double(), state)
    torch.testing.assert_close(weight.double(), x, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_follows_the_published_update_for_100_steps(dtype: torch.dtype) -> None:
    """OPT-01, with the defaults 0.9, 0.95, 1e-8 and decay 0.1."""

    def reference(t: int, x: Tensor, g: Tensor, kept: dict[str, Any]) -> Tensor:
        m = kept["m"] = 0.9 * kept.get("m", 0) + 0.1 * g
        v = kept["v"] = 0.95 * kept.get("v", 0) + 0.05 * g**2
        x = x - 1e-2 * 0.1 * x
        return x - 1e-2 * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)

    followed(AdamW(lr=1e-2), reference, dtype)


def test_adamw_is_pytorchs_bit_for_bit() -> None:
    """OPT-01."""
    ours, theirs = model(), model()
    mine = build_optimizer(ours, AdamW(lr=1e-2, no_decay=()))
    take_steps(ours, mine, range(20))
    take_steps(
        theirs,
        torch.optim.AdamW(theirs.parameters(), 1e-2, betas=(0.9, 0.95), weight_decay=0.1, fused=True),
        range(20),
    )
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_ademamix_follows_the_published_update_for_100_steps() -> None:
    """OPT-02: Pagliardini et al. 2024, Algorithm 1 with both warm-ups (equation 4 in terms of half-lives)."""

    def reference(t: int, x: Tensor, g: Tensor, kept: dict[str, Any]) -> Tensor:
        share = min(1.0, t / 60)
        life = (1 - share) * math.log(0.5) / math.log(0.9) + share * math.log(0.5) / math.log(0.9999)
        beta3, alpha = 0.5 ** (1 / life), 5 * share
        m = kept["m"] = 0.9 * kept.get("m", 0) + 0.1 * g
        slow = kept["slow"] = beta3 * kept.get("slow", 0) + (1 - beta3) * g
        v = kept["v"] = 0.95 * kept.get("v", 0) + 0.05 * g**2
        change = (m / (1 - 0.9**t) + alpha * slow) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
        return x - 1e-2 * (change + 0.1 * x)

    followed(AdEMAMix(kind="ademamix", lr=1e-2, warmup_steps=60), reference)


def test_ademamix_without_its_slow_average_is_adamw() -> None:
    one, other = model(), model()
    take_steps(one, build_optimizer(one, AdEMAMix(kind="ademamix", alpha=0)), range(20))
    take_steps(other, build_optimizer(other, AdamW()), range(20))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_lion_follows_the_published_update_for_100_steps() -> None:
    """Chen et al. 2023, Algorithm 2."""

    def reference(t: int, x: Tensor, g: Tensor, kept: dict[str, Any]) -> Tensor:
        m = kept.get("m", torch.zeros_like(g))
        kept["m"] = 0.99 * m + 0.01 * g
        return x - 1e-3 * ((0.9 * m + 0.1 * g).sign() + 0.1 * x)

    followed(Lion(kind="lion", lr=1e-3), reference)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.kind)
def test_saved_state_continues_bit_for_bit(section: Optimizer) -> None:
    straight, halted = model(), model()
    first, second = build_optimizer(straight, section), build_optimizer(halted, section)
    take_steps(straight, first, range(6))
    take_steps(halted, second, range(3))
    resumed = build_optimizer(halted, section)
    load_optimizer_tensors(resumed, {name: tensor.clone() for name, tensor in optimizer_tensors(second).items()})
    take_steps(halted, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), halted.parameters(), strict=True))


def test_any_class_of_pytorch_takes_our_groups_and_its_own_arguments() -> None:
    ours, theirs = model(), model()
    section = OwnOptimizer(kind="torch.optim:SGD", lr=0.1, weight_decay=0, arguments={"momentum": 0.9})
    optimizer = build_optimizer(ours, section)
    assert isinstance(optimizer, torch.optim.SGD)
    take_steps(ours, optimizer, range(5))
    take_steps(theirs, torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9), range(5))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "torch.optim:SDG"}, "no torch.optim.Optimizer"),
        ({"kind": "torch.optim:Rprop"}, "takes none; set it to 0"),
        ({"kind": "torch.optim:SGD", "arguments": {"momentun": 0.9}}, "momentun"),
        ({"kind": "torch.optim:SGD", "arguments": {"momentum": -1}}, "Invalid momentum"),
        ({"kind": "torch.optim:LBFGS", "weight_decay": 0}, "a closure"),
        ({"kind": "torch.optimal:SGD"}, "cannot import 'torch.optimal'"),
    ],
)
def test_a_class_that_does_not_fit_is_refused_in_a_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_optimizer(model(), OwnOptimizer.model_validate(fields))
    assert "\n" not in str(caught.value) and "train.optimizer" in str(caught.value)


def test_a_class_of_the_users_own_is_held_to_the_file_it_was_frozen_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DESIGN: the source hash of a part of the user's own enters fingerprints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "still.py").write_text("import torch\nclass Still(torch.optim.SGD):\n    def step(self): pass\n")
    fields = {"sequence": 8, "batch_tokens": 8, "stages": [{"name": "a", "steps": 1, "mixture": {"x": 1}}]}
    train = Train.model_validate({**fields, "optimizer": {"kind": "still:Still"}})
    assert train.optimizer.source
    assert type(build_optimizer(model(), train.optimizer)).__name__ == "Still"
    (tmp_path / "still.py").write_text("import torch\nclass Still(torch.optim.SGD): pass\n")
    again = Train.model_validate(train.model_dump(mode="json"))
    assert again.optimizer == train.optimizer
    with pytest.raises(InputError, match=r"still.py has changed since this recipe was frozen"):
        build_optimizer(model(), again.optimizer)
    with pytest.raises(ValidationError, match="cannot import 'stil'"):
        Train.model_validate({**fields, "optimizer": {"kind": "stil:Still"}})
    with pytest.raises(ValidationError, match="takes its own arguments under 'arguments'; move it there"):
        Train.model_validate({**fields, "optimizer": {"kind": "still:Still", "momentum": 0.9}})


SMALL = Model.model_validate(
    {"hidden": 32, "layers": 1, "attention": {"heads": 4, "kv_heads": 2}, "feedforward": {"width": 32}}
)


@pytest.mark.parametrize("section", SECTIONS[:4], ids=lambda section: section.kind)
def test_under_bf16_weights_gradients_and_state_stay_float32(section: Optimizer) -> None:
    """OPT-16."""
    decoder = Decoder(SMALL, 61, torch.bfloat16).train()
    initialise(decoder, 0)
    tokens = torch.arange(60)[None] % 61
    optimizer = build_optimizer(decoder, section)
    for _ in range(2):
        decoder(tokens[:, :-1], targets=tokens[:, 1:]).mean().backward()
    optimizer.step()
    follow(optimizer, 0.9)
    tensors = [*decoder.parameters(), *(parameter.grad for parameter in decoder.parameters())]
    assert {tensor.dtype for tensor in (*tensors, *optimizer_tensors(optimizer).values())} == {torch.float32}


@pytest.mark.parametrize("kind", ["adamw", "lion", "ademamix"])
def test_updates_too_small_for_bf16_add_up(kind: str) -> None:
    """OPT-16: 100 steps of 1e-4 from 1.0; bfloat16 rounds each of them away, as the plain loop beside shows."""
    section = {"adamw": AdamW, "lion": Lion, "ademamix": AdEMAMix}[kind](
        kind=kind, lr=1e-4, weight_decay=0, no_decay=()
    )
    weight = nn.Parameter(torch.ones(8))
    optimizer = build_optimizer([("weight", weight)], section)
    pure = torch.ones(8, dtype=torch.bfloat16)
    for _ in range(100):
        weight.grad = torch.ones(8)
        optimizer.step()
        pure -= 1e-4
    assert torch.equal(pure, torch.ones_like(pure))
    assert (weight < 1 - 0.0099).all()
