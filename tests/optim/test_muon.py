"""Muon: what orthogonalising does to singular values, and the whole update against PyTorch's and a plain loop."""

import pytest
import torch
from torch import Tensor, nn

from smelt.optim.muon import orthogonal
from smelt.optim.optimizers import build_optimizer
from smelt.recipe.sections.optimizer import Muon


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 32, 128), (4, 96, 48)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_singular_values_come_near_one(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """OPT-02: from well-conditioned matrices of full rank, whose singular values lie between 0.1 and 1."""
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    values = torch.rand(u.shape[0], u.shape[2], generator=generator, dtype=torch.float64) * 0.9 + 0.1
    out = orthogonal((u * values[:, None] @ v).to(dtype))
    found = torch.linalg.svdvals(out.double())
    assert out.dtype == dtype and found.min() >= 0.6 and found.max() <= 1.3
    aligned = torch.linalg.matrix_norm(out.double() - u @ v, ord=2)
    assert aligned.max() < 0.4  # U V^T itself, but for how far the singular values are from 1


def run(section: Muon, weights: list[Tensor], steps: int = 100) -> list[Tensor]:
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    names = [f"layers.{index}.experts.weight" for index in range(len(weights))]
    optimizer = build_optimizer(list(zip(names, parameters, strict=True)), section)
    for step in range(steps):
        for index, parameter in enumerate(parameters):
            parameter.grad = gradient(step, index, parameter)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def gradient(step: int, index: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + index)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def weights(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_follow_pytorchs_muon(adjust: str, nesterov: bool) -> None:
    """OPT-02: 100 steps, within what rounding to bfloat16 inside the iteration does."""
    start = weights(torch.float32, (16, 24), (16, 24), (24, 16))
    section = Muon(kind="muon", lr=1e-2, adjust_lr=adjust, nesterov=nesterov, no_decay=())
    ours = run(section, start)
    theirs = [nn.Parameter(weight.clone()) for weight in start]
    optimizer = torch.optim.Muon(theirs, 1e-2, adjust_lr_fn=adjust, nesterov=nesterov)
    for step in range(100):
        for index, parameter in enumerate(theirs):
            parameter.grad = gradient(step, index, parameter)
        optimizer.step()
    for mine, other, before in zip(ours, theirs, start, strict=True):
        assert (mine - other).norm() < 0.02 * (mine - before).norm()


def test_matrices_follow_the_published_update_exactly_in_float64() -> None:
    """OPT-02: a plain loop of Jordan et al. 2024, each expert of `[experts, rows, columns]` a matrix of its own."""
    start = weights(torch.float64, (6, 9), (3, 9, 6), (6, 9))
    section = Muon(kind="muon", lr=1e-2, momentum=0.9, weight_decay=0.1, no_decay=())
    ours = run(section, start)
    for index, weight in enumerate(start):
        stack = weight.clone().view(-1, *weight.shape[-2:])
        momentum = torch.zeros_like(stack)
        for step in range(100):
            g = gradient(step, index, weight).view_as(stack)
            momentum = 0.9 * momentum + g
            for each, (b, own) in enumerate(zip(momentum, g, strict=True)):
                x = own + 0.9 * b
                x = x / x.norm()
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                stack[each] = stack[each] * (1 - 1e-2 * 0.1) - 1e-2 * 0.2 * 9**0.5 * x
        torch.testing.assert_close(ours[index], stack.view_as(weight), rtol=0, atol=1e-9)
