"""Norms and rotary turns by tiles, as a CPU takes them, against the whole at once."""

import pytest
import torch
import torch.nn.functional as F
from small_models import generator
from torch import Tensor

from smelt.model import norm, positions
from smelt.model.norm import RMSNorm
from smelt.model.positions import rotate, rotation
from smelt.recipe.parts.position import Rope

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True, params=[50, 2**18], ids=["many tiles", "one tile"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (norm, positions):
        monkeypatch.setattr(module, "TILE", request.param)


def values(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def close(ours: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    torch.testing.assert_close(ours.double(), exact.double(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("strided", [False, True])
def test_a_norm_and_its_gradients_are_those_of_pytorch(dtype: torch.dtype, strided: bool) -> None:
    """Rows that fill no whole number of tiles, and a slice of a wider tensor."""
    x = values(dtype, 3, 7, 24)[..., 4:20] if strided else values(dtype, 3, 7, 16)
    x, upstream = x.detach().requires_grad_(), values(dtype, 3, 7, 16, seed=1)
    module = RMSNorm(16, 1e-5)
    with torch.no_grad():
        module.weight.copy_(values(torch.float32, 16, seed=2))
    out = module(x)
    ours = torch.autograd.grad(out, (x, module.weight), upstream)
    wide, weight = x.detach().double().requires_grad_(), module.weight.detach().double().requires_grad_()
    exact = F.rms_norm(wide, (16,), weight, 1e-5)
    theirs = torch.autograd.grad(exact, (wide, weight), upstream.double())
    assert (out.dtype, ours[0].dtype, ours[1].dtype) == (dtype, dtype, torch.float32)
    for own, other in zip((out, *ours), (exact, *theirs), strict=True):
        close(own, other, torch.float32 if dtype is torch.float64 and own is ours[1] else dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 2])
def test_a_turn_and_its_gradient_are_products_of_complex_numbers(dtype: torch.dtype, rows: int) -> None:
    """Positions of one row for all and of each row, half of the channels left as they are."""
    x = values(dtype, 2, 11, 3, 16).requires_grad_()
    place = torch.arange(11)[None] + 5 * torch.arange(rows)[:, None]
    cosines, sines = rotation(place, Rope(theta=100.0), 8)
    out, upstream = rotate(x, (cosines, sines)), values(dtype, 2, 11, 3, 16, seed=1)
    (grad,) = torch.autograd.grad(out, x, upstream)

    def turned(given: Tensor, direction: int) -> Tensor:
        angle = torch.complex(cosines[..., :4].double(), direction * sines[..., 4:].double())
        pairs = torch.complex(given[..., :4].double(), given[..., 4:8].double()) * angle
        return torch.cat((pairs.real, pairs.imag, given[..., 8:].double()), -1)

    close(out, turned(x.detach(), 1), dtype)
    close(grad, turned(upstream, -1), dtype)
