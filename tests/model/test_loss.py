"""The loss against PyTorch's cross-entropy, and what it never holds."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from small_models import decoder, generator, section, settled, tokens
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from smelt.model import loss as module
from smelt.model.loss import IGNORED, loss_and_log_z, token_loss

SIZES = [(1, 1, 1), (4 * 37 * 7, 4 * 37 * 2, 5), (2**27, 2**24, 4096)]  # bytes of a chunk and a tile, rows of a block


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returned."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.nbytes)
        return out


def inputs(dtype: torch.dtype, batch: int = 2, sequence: int = 15, hidden: int = 8, vocab: int = 37) -> list[Tensor]:
    draw = generator(0)
    x = torch.randn(batch, sequence, hidden, generator=draw, dtype=torch.float64)
    weight = torch.randn(vocab, hidden, generator=draw, dtype=torch.float64)
    targets = torch.randint(0, vocab, (batch, sequence), generator=draw)
    targets[:, 3] = targets[0, 7] = IGNORED
    return [x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets]


def plain(x: Tensor, weight: Tensor, targets: Tensor, scale: float, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Loss and logsumexp from all the logits."""
    logits = x @ weight.T * scale
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
    return loss.view(targets.shape), logits.logsumexp(-1)


def resize(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int]) -> None:
    chunk, tile, block = sizes
    monkeypatch.setattr(module, "CHUNK", {"cpu": chunk})
    monkeypatch.setattr(module, "CHUNK_ROWS", 1)
    monkeypatch.setattr(module, "TILE", tile)
    monkeypatch.setattr(module, "TILE_ROWS", 1)
    monkeypatch.setattr(module, "BLOCK", block)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize(("scale", "softcap", "z_loss"), product([1.0, 0.3], [None, 2.5], [0.0, 0.7]))
def test_values_and_gradients_equal_cross_entropy(
    sizes: tuple[int, int, int],
    uniform: bool,
    scale: float,
    softcap: float | None,
    z_loss: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ARCH-15: for any upstream gradient and chunk; the gradient is that of loss + z_loss * log_z^2."""
    resize(monkeypatch, sizes)
    x, weight, targets = inputs(torch.float64)
    upstream = torch.full(targets.shape, 0.3, dtype=torch.float64)
    if not uniform:
        upstream = torch.randn(targets.shape, generator=generator(1), dtype=torch.float64)
    loss, log_z = loss_and_log_z(x, weight, targets, scale, softcap, z_loss)
    wanted, wanted_log_z = plain(x, weight, targets, scale, softcap)
    torch.testing.assert_close((loss, log_z), (wanted, wanted_log_z))
    grads = torch.autograd.grad(loss, (x, weight), upstream)
    both = wanted + z_loss * wanted_log_z.square() * (targets != IGNORED)
    torch.testing.assert_close(grads, torch.autograd.grad(both, (x, weight), upstream))
    assert not log_z.requires_grad and not loss[targets == IGNORED].any()


@pytest.mark.parametrize("sizes", SIZES)
def test_float32_is_as_exact_as_cross_entropy(sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64, no further off than PyTorch's own float32 loss and gradients (and rounding of the last bit)."""
    resize(monkeypatch, sizes)
    x, weight, targets = inputs(torch.float32)

    def run(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
        return [loss.double(), *(grad.double() for grad in torch.autograd.grad(loss.sum(), leaves))]

    ours = run(token_loss(x, weight, targets), x, weight)
    theirs = run(plain(x, weight, targets, 1.0, None)[0], x, weight)
    doubles = [each.detach().double().requires_grad_() for each in (x, weight)]
    exact = run(plain(*doubles, targets, 1.0, None)[0], *doubles)
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        assert (mine - true).abs().max() <= 3 * (other - true).abs().max() + 1e-6


def test_a_second_pass_over_a_retained_graph_gives_the_same_gradient() -> None:
    x, weight, targets = inputs(torch.float32)
    loss = token_loss(x, weight, targets).mean()
    first = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, (x, weight)), first, rtol=0, atol=0)


def test_huge_logits_stay_finite_and_confident_ones_exact() -> None:
    x = torch.tensor([[[1e4, 0.0]]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    wrong = token_loss(x, weight, torch.tensor([[1]]))
    assert wrong.item() == pytest.approx(1e4) and token_loss(x, weight, torch.tensor([[0]])).item() == 0
    (grad,) = torch.autograd.grad(wrong, x)
    assert grad.tolist() == [[[1.0, -1.0]]]


def test_only_ignored_targets_cost_nothing_and_teach_nothing() -> None:
    x, weight, targets = inputs(torch.float32)
    loss = token_loss(x, weight, torch.full_like(targets, IGNORED), z_loss=1.0)
    loss.sum().backward()
    assert not loss.any() and not x.grad.any() and not weight.grad.any()


def test_nan_in_a_weight_of_an_ignored_token_reaches_nobody() -> None:
    x, weight, targets = inputs(torch.float32)
    upstream = torch.full(targets.shape, 0.5).masked_fill(targets == IGNORED, torch.nan)
    grads = torch.autograd.grad(token_loss(x, weight, targets), (x, weight), upstream)
    assert all(grad.isfinite().all() for grad in grads)


def test_a_large_vocabulary_never_has_all_its_logits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward make no tensor above one chunk; the logits would be 20 times that."""
    resize(monkeypatch, (2**23, 2**20, 1024))
    x, weight, targets = inputs(torch.float32, batch=4, sequence=512, hidden=4, vocab=20_000)
    with Largest() as largest:
        module._chunks(x.detach().flatten(0, 1), weight.detach(), targets.flatten(), torch.ones(2048), 1.0, 0.0, 0.0)
    assert 4 * targets.numel() * len(weight) > 19 * 2**23
    assert largest.bytes <= 2**23


def test_bfloat16_states_give_float32_losses_and_weight_gradients() -> None:
    x, weight, targets = inputs(torch.float32)
    half = x.detach().bfloat16().requires_grad_()
    loss = token_loss(half, weight, targets)
    loss.sum().backward()
    assert (loss.dtype, half.grad.dtype, weight.grad.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    torch.testing.assert_close(loss, token_loss(x, weight, targets), rtol=0.02, atol=0.02)


def test_the_operator_keeps_the_rules_that_compilation_relies_on() -> None:
    """Shapes without data, no aliases, autograd below the dispatcher: what `torch.compile` and export trust."""
    x, weight, targets = inputs(torch.float32)
    torch.library.opcheck(module._token_loss, (x.flatten(0, 1), weight, targets.flatten(), 0.5, 0.0, 0.1, True))


def test_it_compiles_in_one_graph() -> None:
    x, weight, targets = inputs(torch.float32)
    compiled = torch.compile(token_loss, backend="aot_eager", fullgraph=True)
    for upstream in (torch.ones(targets.shape), torch.randn(targets.shape, generator=generator(2))):
        grads = torch.autograd.grad(compiled(x, weight, targets, 0.5), (x, weight), upstream)
        torch.testing.assert_close(
            grads, torch.autograd.grad(token_loss(x, weight, targets, 0.5), (x, weight), upstream)
        )


@pytest.mark.parametrize("changes", [{}, {"logit_scale": 0.3, "logit_softcap": 2.0, "tie_embeddings": False}])
def test_a_decoder_trains_on_loss_and_z_loss_and_shows_the_loss(changes: dict) -> None:
    """ARCH-15: the gradient is that of loss + lambda * (log Z)^2; values and evaluation know nothing of it."""
    model, plain_model = (decoder(section(**changes, **z)).train() for z in ({"z_loss": 0.1}, {}))
    x, y = tokens(2, 9), tokens(2, 9, seed=1)
    y[0, 3] = IGNORED
    losses = model(x, targets=y)
    logits = plain_model(x)
    log_z = logits.logsumexp(-1)
    expected = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(2, 9)
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    (expected + 0.1 * log_z.square() * (y != IGNORED)).sum().backward()
    for (name, mine), other in zip(model.named_parameters(), plain_model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)
    means = settled(model)
    counted = log_z[y != IGNORED]
    assert means["z_loss"].item() == pytest.approx(0.1 * counted.square().mean().item(), rel=1e-5)
    assert means["log_z_abs"].item() == pytest.approx(counted.abs().mean().item(), rel=1e-5)
    model.eval()(x, targets=y)
    assert settled(model)["log_z_abs"] == 0


def test_z_loss_keeps_the_denominator_near_one_at_the_same_loss() -> None:
    """ARCH-15: after a short training |log Z| is smaller, the loss (of tokens drawn from seven) within noise."""
    ends = []
    for z_loss in (0.0, 1e-2):
        model = decoder(section(layers=1, z_loss=z_loss, init={"kind": "normal"})).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for step in range(60):
            loss = model(tokens(8, 16, seed=step), targets=tokens(8, 16, vocab=7, seed=-step)).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            log_z = settled(model)["log_z_abs"].item()
        ends.append((loss.item(), log_z))
    assert ends[0][0] < 2.2 and ends[1][0] == pytest.approx(ends[0][0], rel=0.02)
    assert ends[1][1] < 0.5 * ends[0][1], ends


def test_a_decoder_that_measures_compiles_in_one_graph() -> None:
    model = decoder(section(layers=1, z_loss=1e-3, multi_token={"depth": 1})).train()
    x, y = tokens(2, 9), tokens(2, 9, seed=1)
    plain_loss = model(x, targets=y)
    before = settled(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, targets=y), plain_loss)
    for name, mean in settled(model).items():
        torch.testing.assert_close(mean, before[name])
    assert len(before) == 3
