"""The loss against PyTorch's cross-entropy, and what it never holds."""

import pytest
import torch
import torch.nn.functional as F
from small_models import generator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from smelt.model import loss as module
from smelt.model.loss import token_loss


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def inputs(dtype: torch.dtype, batch: int = 2, sequence: int = 15, hidden: int = 8, vocab: int = 37) -> list[Tensor]:
    draw = generator(0)
    x = torch.randn(batch, sequence, hidden, generator=draw, dtype=torch.float64)
    weight = torch.randn(vocab, hidden, generator=draw, dtype=torch.float64)
    targets = torch.randint(0, vocab, (batch, sequence), generator=draw)
    targets[:, 3] = targets[0, 7] = -100
    return [x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets]


@pytest.mark.parametrize("budget", [1, 4 * 37 * 7, module.BUDGET])
def test_values_and_gradients_equal_cross_entropy(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any upstream gradient, whether tokens come in one chunk, several, or one each."""
    monkeypatch.setattr(module, "BUDGET", budget)
    x, weight, targets = inputs(torch.float32)
    exact_x, exact_weight, _ = inputs(torch.float64)
    upstream = torch.randn(targets.shape, generator=generator(1), dtype=torch.float64)
    loss = token_loss(x, weight, targets)
    logits = exact_x.float().double() @ exact_weight.float().double().T
    exact = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(loss, (x, weight), upstream.float())
    wanted = torch.autograd.grad(exact, (exact_x, exact_weight), upstream)
    torch.testing.assert_close([grad.double() for grad in grads], list(wanted), rtol=1e-4, atol=1e-5)
    assert loss.dtype == torch.float32 and not loss[targets == -100].any()


def test_huge_logits_stay_finite_and_confident_ones_exact() -> None:
    x = torch.tensor([[[1e4, 0.0]]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    wrong = token_loss(x, weight, torch.tensor([[1]]))
    assert wrong.item() == pytest.approx(1e4) and token_loss(x, weight, torch.tensor([[0]])).item() == 0
    (grad,) = torch.autograd.grad(wrong, x)
    assert grad.tolist() == [[[1.0, -1.0]]]


def test_only_ignored_targets_cost_nothing_and_teach_nothing() -> None:
    x, weight, targets = inputs(torch.float32)
    loss = token_loss(x, weight, torch.full_like(targets, -100))
    loss.sum().backward()
    assert not loss.any() and not x.grad.any() and not weight.grad.any()


def test_a_large_vocabulary_never_has_all_its_logits_in_memory() -> None:
    """Forward and backward touch no tensor above the budget (or the weight itself)."""
    x, weight, targets = inputs(torch.float32, batch=4, sequence=512, hidden=4, vocab=20_000)
    with Largest() as largest:
        token_loss(x, weight, targets).sum().backward()
    assert targets.numel() * len(weight) > 2 * module.BUDGET // 4
    assert largest.elements <= max(module.BUDGET // 4, weight.numel())


def test_bfloat16_states_give_float32_losses_and_weight_gradients() -> None:
    x, weight, targets = inputs(torch.float32)
    half = x.detach().bfloat16().requires_grad_()
    loss = token_loss(half, weight, targets)
    loss.sum().backward()
    assert (loss.dtype, half.grad.dtype, weight.grad.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    torch.testing.assert_close(loss, token_loss(x, weight, targets), rtol=0.1, atol=0.1)
