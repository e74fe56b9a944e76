"""Linear attention with every gate: its forms agree with the definition, with each other, and with MiniMax's layer."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_layers import GATES, HIDDEN, context, in_pieces, inputs, layer, linear, quadratic, recurrent, scatter
from small_models import starts_of

from smelt.model import elements

EXTRAS: dict[str, dict[str, Any]] = {
    "hgrn2": {"floor": 0.3},
    "gla": {"output_gate": True, "activation": "silu"},
    "retention": {"norm": "none", "tau": 4.0},
}


@pytest.mark.parametrize("gate", GATES)
@settings(max_examples=6, deadline=None)
@given(sequence=st.integers(1, 21), chunk=st.integers(1, 24), extras=st.booleans(), seed=st.integers(0, 9))
def test_quadratic_recurrent_and_chunked_forms_agree(
    gate: str, sequence: int, chunk: int, extras: bool, seed: int
) -> None:
    """ARCH-25: every gate of the table, at any length and any chunk."""
    module = layer(linear(gate, chunk=chunk, **(EXTRAS.get(gate, {}) if extras else {})), seed=seed)
    x = inputs(2, sequence, seed)
    expected = recurrent(module, x)
    torch.testing.assert_close(quadratic(module, x), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(module(x, context(x), None).double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(in_pieces(module, x, None, [1] * sequence).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("gate", GATES)
def test_gradients_are_those_of_the_definition(gate: str) -> None:
    """ARCH-25"""
    module, x = layer(linear(gate, chunk=4)), inputs(2, 11).requires_grad_()
    weights = list(module.parameters())
    mine = torch.autograd.grad(module(x, context(x), None).square().sum(), [x, *weights])
    theirs = torch.autograd.grad(recurrent(module, x).square().sum(), [x, *weights])
    for own, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own, other.float(), rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize("gate", ["mlstm", "rwkv6", "hgrn2", "retention", "dfw", "gateloop", "mamba"])
def test_a_gate_of_one_recovers_the_ungated_state(gate: str) -> None:
    """ARCH-25"""
    gated, ungated = layer(linear(gate)), layer(linear("none"))
    ungated.load_state_dict({name: gated.state_dict()[name] for name in ungated.state_dict()})
    x = inputs(2, 13)
    x[..., 0] = 1.0  # a channel through which a matrix can set its gate
    with torch.no_grad():
        for name, parameter in gated.gate.named_parameters():
            if name == "a":
                parameter.fill_(-30.0)
            elif name != "w2.weight" or gate == "dfw":
                parameter[:, 0] = -30.0 if gate == "rwkv6" else 60.0
            else:
                parameter.zero_()
    torch.testing.assert_close(gated(x, context(x), None), ungated(x, context(x), None), rtol=0, atol=1e-4)


def test_silu_is_the_default_of_lightning_alone() -> None:
    assert layer(linear("lightning")).config.silu and not layer(linear("none")).config.silu
    assert not layer(linear("lightning", activation="none")).config.silu


@pytest.mark.parametrize("gate", GATES)
def test_strong_decays_stay_finite_and_right(gate: str) -> None:
    """Decays down to e^-1000 a token beside weak ones, in one chunk."""
    module, x = layer(linear(gate, chunk=16)), inputs(2, 32).requires_grad_()
    with torch.no_grad():
        for parameter in module.gate.parameters():
            parameter *= 30 if parameter.shape[-1] == HIDDEN else 3
    out = module(x, context(x), None)
    torch.testing.assert_close(out.double(), recurrent(module, x), rtol=0, atol=1e-3)
    out.square().sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in (x, *module.parameters()))


def test_lightning_is_minimax_s_layer() -> None:
    """ARCH-25: against transformers, whose norm spans all heads and is left out on both sides."""
    from transformers import AutoConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    fields = {"hidden_size": HIDDEN, "num_attention_heads": 4, "head_dim": 6, "block_size": 8, "num_hidden_layers": 2}
    theirs = MiniMaxLightningAttention(
        AutoConfig.for_model("minimax", **fields, layer_types=["linear_attention"] * 2), layer_idx=0
    )
    scatter(theirs)
    theirs.norm = torch.nn.Identity()
    mine = layer(linear("lightning", heads=4, key_dim=6, value_dim=6, norm="none", output_gate=True, chunk=5), std=0.5)
    with torch.no_grad():
        fused = theirs.qkv_proj.weight.unflatten(0, (4, 3, 6)).transpose(0, 1).flatten(1, 2)
        for matrix, weight in zip((mine.q, mine.k, mine.v), fused, strict=True):
            matrix.weight.copy_(weight)
        mine.output_gate.weight.copy_(theirs.output_gate.weight)
        mine.out.weight.copy_(theirs.out_proj.weight * 6**0.5)  # they do not scale queries
    x = inputs(2, 19)
    expected = theirs(x, position_embeddings=None, attention_mask=None)[0]
    torch.testing.assert_close(mine(x, context(x), None), expected, rtol=1e-3, atol=1e-3)


def test_the_scan_of_elements_differentiates_exactly() -> None:
    """In float64, with documents, a first state, and chunks that do not divide the row."""
    shapes = [(2, 5, 1, 2), (2, 5, 1, 2), (2, 5, 1, 3), (2, 5, 1, 3), (1, 2, 3), (2, 1, 2, 3)]
    q, k, v, steps, rates, state = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    where = context(inputs(2, 5), starts_of([[2, 3], [5]]))
    assert torch.autograd.gradcheck(lambda *given: elements.chunked(*given, where, 2), (q, k, v, steps, rates, state))
