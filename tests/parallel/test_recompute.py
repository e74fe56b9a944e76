"""Layers that forget and compute again, or are compiled, give the gradients of plain ones."""

from typing import Any

import pytest
import torch
from reference import DENSE, plain, spread
from torch import Tensor

from smelt.errors import InputError
from smelt.model.balance import after_step
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.parallel.fp8 import check_fp8, multiply_in_fp8
from smelt.parallel.outfit import outfit
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import Model

PLAIN = {"hidden": 64, "layers": 3, "attention": {"heads": 4, "kv_heads": 2}, "feedforward": {"width": 128}}
MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 32, "balance": {"kind": "loss"}, "z_loss": 0.001}
MODELS: dict[str, dict[str, Any]] = {
    "llama": PLAIN,
    "documents, windows, experts": {
        **PLAIN,
        "feedforward": MOE,
        "per_layer": [{"layers": 1, "attention": {"window": 8, "qk_norm": "head"}}],
        "multi_token": {"depth": 1},
    },
    "recurrent": {
        **PLAIN,
        "per_layer": [
            {
                "layers": 1,
                "attention": {
                    "kind": "gated_deltanet",
                    "key_heads": 2,
                    "value_heads": 4,
                    "key_dim": 16,
                    "value_dim": 16,
                },
            }
        ],
    },
}


def gradients(model: Decoder) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients on two rows of documents."""
    tokens = torch.randint(0, 256, (2, 65), generator=torch.Generator().manual_seed(1))
    begins = torch.tensor([[0] * 20 + [20] * 44, [0] * 64], dtype=torch.int32)
    loss = model(tokens[:, :-1], starts=begins, targets=tokens[:, 1:]).mean()
    loss.backward()
    return loss.detach(), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def decoder(section: dict[str, Any], dtype: torch.dtype = torch.float32) -> Decoder:
    model = Decoder(Model.model_validate(section), 256, dtype)
    initialise(model, 0)
    return model.train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("amount", ["selective", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_recomputed_layers_give_the_same_gradients_bit_for_bit(name: str, amount: Any, dtype: torch.dtype) -> None:
    """INFRA-05: recompute none, selective and full; experts count their tokens once."""
    plain, again = decoder(MODELS[name], dtype), decoder(MODELS[name], dtype)
    outfit(again, Infra(recompute=amount))
    assert list(dict(again.named_parameters())) == list(dict(plain.named_parameters()))
    (loss, expected), (other, found) = gradients(plain), gradients(again)
    assert torch.equal(loss, other) and expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for one, two in zip(after_step(plain), after_step(again), strict=True):
        assert torch.equal(one.load, two.load)


def test_with_full_recomputation_little_is_remembered() -> None:
    """INFRA-05: bytes kept for the backward pass, counted as they are kept."""
    kept = {amount: remembered(amount) for amount in ("none", "full")}
    assert kept["full"] < kept["none"] / 3


def remembered(amount: str) -> int:
    model, seen = decoder(PLAIN), {}
    own = {each.data_ptr() for each in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            seen[tensor.data_ptr()] = tensor.nbytes
        return tensor

    outfit(model, Infra.model_validate({"recompute": amount}))
    tokens = torch.zeros(2, 128, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.states(tokens)
    return sum(seen.values())


@pytest.mark.slow
@pytest.mark.parametrize("amount", ["none", "selective", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_compiled_layers_give_the_same_gradients_within_rounding(name: str, amount: Any) -> None:
    plain, compiled = decoder(MODELS[name]), decoder(MODELS[name])
    outfit(compiled, Infra(compile=True, recompute=amount))
    (loss, expected), (other, found) = gradients(plain), gradients(compiled)
    torch.testing.assert_close(other, loss, rtol=1e-5, atol=0)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6)
    for one, two in zip(after_step(plain), after_step(compiled), strict=True):
        assert torch.equal(one.load, two.load)


def losses_of(layout: dict[str, Any], infra: dict[str, Any], dtype: str) -> list[float]:
    return spread(layout, DENSE, dtype, **infra)[0]


@pytest.mark.parametrize("layout", [{"zero": 3}, {"tensor": 2}], ids=str)
@pytest.mark.parametrize("amount", ["selective", "full"])
def test_spread_over_processes_too(pool: Any, layout: dict[str, Any], amount: str) -> None:
    """INFRA-05: twenty losses equal to one process, which remembers everything."""
    expected, _ = plain(DENSE, torch.float64)
    for found in pool(2, losses_of, layout, {"recompute": amount}, "float64"):
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"zero": 3}, {"zero": 1}, {"tensor": 2}], ids=str)
def test_compiled_layers_spread_over_processes_too(pool: Any, layout: dict[str, Any]) -> None:
    expected, _ = plain(DENSE, torch.float32)
    for found in pool(2, losses_of, layout, {"compile": True}, "float32"):
        assert found == pytest.approx(expected, rel=1e-4)


def test_products_in_8_bits_are_close_and_leave_master_weights_as_they_are() -> None:
    """Emulated, as the numbers would be on a Hopper GPU."""
    pytest.importorskip("torchao")
    plain, eight = decoder(PLAIN, torch.bfloat16), decoder(PLAIN, torch.bfloat16)
    multiply_in_fp8([eight], emulate=True)
    (loss, expected), (other, found) = gradients(plain), gradients(eight)
    assert loss != other and abs(loss - other) < 0.01
    for name in expected:
        assert found[name].dtype == torch.float32
        assert (found[name] - expected[name]).norm() < 0.2 * expected[name].norm()


def test_8_bits_are_refused_in_one_line_where_no_device_has_them() -> None:
    with pytest.raises(InputError, match=r"train\.precision: 'fp8' needs a GPU of the Hopper generation or later"):
        check_fp8(torch.device("cpu"))
