"""Outliers are passed over, and leave no trace but the count."""

import pytest
import torch
from torch import Tensor, nn

from smelt.errors import InputError
from smelt.optim.optimizers import build_optimizer, optimizer_tensors
from smelt.optim.skip import Skip, update
from smelt.recipe.sections.optimizer import AdamW, AdEMAMix, Lion, Muon, Optimizer, OwnOptimizer, SkipStep

CPU = torch.device("cpu")
SECTIONS = [
    AdamW(lr=0.1),
    Muon(kind="muon", lr=0.1),
    AdEMAMix(kind="ademamix", lr=0.1, warmup_steps=3),
    Lion(kind="lion", lr=0.1),
    OwnOptimizer(kind="torch.optim:RAdam", lr=0.1),
    OwnOptimizer(kind="torch.optim:SGD", lr=0.1, arguments={"momentum": 0.9}),
]


def judged(skip: Skip, losses: list[float], norms: list[float] | None = None) -> list[bool]:
    norms = norms or [1.0 + 0.01 * (index % 3) for index in range(len(losses))]
    return [bool(skip.decide(torch.tensor(a), torch.tensor(b))) for a, b in zip(losses, norms, strict=True)]


def noise(count: int, seed: int = 0) -> list[float]:
    return (2 + 0.1 * torch.randn(count, generator=torch.Generator().manual_seed(seed))).tolist()


def test_a_spike_of_loss_or_of_gradient_norm_is_skipped_and_ordinary_noise_is_not() -> None:
    skip = Skip(SkipStep(sigmas=6, window=32), CPU)
    assert not any(judged(skip, noise(200), noise(200, seed=1)))
    assert judged(skip, [3.0], [2.0]) == [True]
    assert judged(skip, [2.0], [3.0]) == [True]
    assert judged(skip, [0.5], [0.5]) == [False]  # low is no outlier
    assert int(skip.skipped) == 2


def test_the_threshold_is_mean_plus_sigmas_deviations_of_the_last_steps_that_counted() -> None:
    seen = noise(40)
    last = torch.tensor(seen[-16:], dtype=torch.float64)
    limit = float(last.mean() + 3 * last.std(correction=0))
    for factor, expected in ((0.999, False), (1.001, True)):
        skip = Skip(SkipStep(sigmas=3, window=16), CPU)
        for loss in seen:
            skip.decide(torch.tensor(loss), torch.tensor(1.0))
        skip.decide(torch.tensor(9.9), torch.tensor(1.0))  # does not count, so the limit stays
        assert judged(skip, [limit * factor], [1.0]) == [expected]


def test_nothing_finite_is_skipped_before_half_a_window_counted() -> None:
    skip = Skip(SkipStep(sigmas=1, window=8), CPU)
    assert judged(skip, [1.0, 100.0, float("nan"), 1e4, float("inf"), 1e6]) == [False, False, True, False, True, False]
    assert judged(skip, [1e9]) == [True]


def test_a_level_that_stays_is_taken_for_the_new_normal() -> None:
    skip = Skip(SkipStep(sigmas=6, window=16, patience=4), CPU)
    judged(skip, noise(30))
    assert judged(skip, [5.0, 5.1, float("nan"), 5.0, 5.1, 5.0, 5.1]) == [True, True, True, True, True, False, False]
    assert int(skip.skipped) == 5


def test_what_it_knows_is_saved_and_restored() -> None:
    straight, halted = (Skip(SkipStep(sigmas=2, window=16), CPU) for _ in range(2))
    losses = noise(60)
    expected = judged(straight, losses)
    assert any(expected)
    first = judged(halted, losses[:30])
    resumed = Skip(SkipStep(sigmas=2, window=16), CPU)
    resumed.load({name: tensor.clone() for name, tensor in halted.tensors().items()})
    assert int(resumed.skipped) == sum(first)
    norms = [1.0 + 0.01 * (index % 3) for index in range(60)]
    assert first + judged(resumed, losses[30:], norms[30:]) == expected
    assert int(resumed.skipped) == int(straight.skipped)


def parameters() -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(0)
    shapes = {"embedding.weight": (5, 4), "layer.weight": (4, 6), "norm.weight": (4,)}
    return [(name, nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()]


def give_gradients(named: list[tuple[str, nn.Parameter]], seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in named:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale


def everything(named: list[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {**dict(named), **optimizer_tensors(optimizer)}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.kind)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_skipped_step_leaves_weights_and_state_bit_for_bit(section: Optimizer, bad: float) -> None:
    ours, theirs = parameters(), parameters()
    first, second = build_optimizer(ours, section), build_optimizer(theirs, section)
    for seed in range(4):
        give_gradients(ours, seed)
        update(first, torch.tensor(False))
        before = everything(ours, first)
        give_gradients(ours, seed, bad)
        update(first, torch.tensor(True))
        after = everything(ours, first)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        give_gradients(theirs, seed)
        update(second)
    for name, tensor in everything(theirs, second).items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.kind)
def test_the_very_first_step_can_be_skipped(section: Optimizer) -> None:
    ours, theirs = parameters(), parameters()
    first, second = build_optimizer(ours, section), build_optimizer(theirs, section)
    give_gradients(ours, 0, float("nan"))
    update(first, torch.tensor(True))
    for named, optimizer in ((ours, first), (theirs, second)):
        give_gradients(named, 1)
        update(optimizer, torch.tensor(False))
    for name, tensor in everything(theirs, second).items():
        assert torch.equal(everything(ours, first)[name], tensor)


def test_state_that_cannot_be_taken_back_is_refused() -> None:
    named = parameters()
    optimizer = build_optimizer(named, OwnOptimizer(kind="torch.optim:SGD", arguments={"momentum": 0.9}))
    give_gradients(named, 0)
    optimizer.step()
    optimizer.state[named[0][1]]["seen"] = 3
    with pytest.raises(InputError, match=r"train\.skip_step: SGD keeps 'seen' as a int"):
        update(optimizer, torch.tensor(True))
    with pytest.raises(InputError, match=r"train\.optimizer\.kind: SGD keeps 'seen' as a int"):
        optimizer_tensors(optimizer)
