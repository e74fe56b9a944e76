"""Multi-head latent attention: DeepSeek's own module, and the absorbed form that decodes from the latent vectors."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_models import generator, section, starts_of
from torch import Tensor
from variants import latent_layers

from smelt.model.context import Context
from smelt.model.latent import LatentAttention

HIDDEN = 32
FIELDS = {"kind": "mla", "heads": 4, "kv_rank": 12, "nope_dim": 6, "rope_dim": 4, "value_dim": 10}


def latent(position: Any = None, **fields: Any) -> LatentAttention:
    """A module with random weights."""
    config = section(attention={**FIELDS, **fields}, position=position or {"kind": "rope", "theta": 100.0})
    module = LatentAttention(config.attention, config.around(0)).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator(name)))
    return module


def inputs(batch: int, sequence: int) -> Tensor:
    return torch.randn(batch, sequence, HIDDEN, generator=generator("x"))


def interleaved(rows: Tensor, rope_dim: int) -> Tensor:
    """Rows `[..., rope_dim, inputs]` of our order, pairs (i, i + half), in DeepSeek's, pairs (2i, 2i + 1)."""
    return rows.unflatten(-2, (2, rope_dim // 2)).transpose(-3, -2).flatten(-3, -2)


def deepseek_weights(module: LatentAttention) -> dict[str, Tensor]:
    c, weights = module.config, module.state_dict()
    query = "q" if c.q_rank is None else "q_up"
    nope, rope = weights[f"{query}.weight"].unflatten(0, (c.heads, -1)).split([c.nope_dim, c.rope_dim], 1)
    up = [weights[f"{name}.weight"].unflatten(0, (c.heads, -1)) for name in ("k_up", "v_up")]
    theirs = {
        "kv_a_proj_with_mqa.weight": torch.cat(
            (weights["kv_down.weight"], interleaved(weights["k_rope.weight"], c.rope_dim))
        ),
        "kv_a_layernorm.weight": weights["kv_norm.weight"],
        "kv_b_proj.weight": torch.cat(up, 1).flatten(0, 1),
        "o_proj.weight": weights["o.weight"],
    }
    q = torch.cat((nope, interleaved(rope, c.rope_dim)), 1).flatten(0, 1)
    if c.q_rank is None:
        return {**theirs, "q_proj.weight": q}
    names = {"q_a_proj.weight": "q_down.weight", "q_a_layernorm.weight": "q_norm.weight"}
    return {**theirs, "q_b_proj.weight": q, **{name: weights[ours] for name, ours in names.items()}}


@pytest.mark.parametrize("q_rank", [None, 10])
@pytest.mark.parametrize("scaling", [None, {"kind": "yarn", "factor": 4.0, "original": 16, "temperature": 1.3}])
def test_it_is_deepseeks_module(q_rank: int | None, scaling: Any) -> None:
    """ARCH-03: output and gradient in float32, with weights copied into `transformers`."""
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

    module = latent({"kind": "rope", "theta": 100.0, "scaling": scaling}, q_rank=q_rank)
    c = module.config
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": 100.0}
    if scaling:
        parameters |= {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
        parameters |= {"attention_factor": 1.3}
    config = DeepseekV3Config(
        hidden_size=HIDDEN,
        num_attention_heads=c.heads,
        num_key_value_heads=c.heads,
        kv_lora_rank=c.kv_rank,
        q_lora_rank=q_rank,
        qk_nope_head_dim=c.nope_dim,
        qk_rope_head_dim=c.rope_dim,
        v_head_dim=c.value_dim,
        max_position_embeddings=64,
        rope_parameters=parameters,
        attn_implementation="eager",
    )
    other = DeepseekV3Attention(config, 0)
    other.load_state_dict(deepseek_weights(module))
    x, y = (inputs(2, 17).requires_grad_() for _ in range(2))
    mask = torch.full((17, 17), -torch.inf).triu(1)[None, None]
    rotary = DeepseekV3RotaryEmbedding(config)(x, torch.arange(17)[None])
    expected = other(y, rotary, mask)[0]
    out = module(x, Context(x[..., 0], None), None)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    (out.square().sum() + expected.square().sum()).backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-4)


@settings(max_examples=30)
@given(layer=latent_layers, cuts=st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_the_absorbed_form_equals_the_grown_one(layer: dict[str, Any], cuts: list[int]) -> None:
    """ARCH-03: within 1e-5, however many tokens come at a time."""
    module = latent(layer["position"], **layer["attention"])
    x = inputs(2, sum(cuts))
    starts = torch.tensor([[0], [1]], dtype=torch.int32) * (torch.arange(sum(cuts)) >= 1)  # a row padded by a token
    cache, parts, done = module.new_cache(2, sum(cuts), torch.float32, "cpu"), [], 0
    for cut in cuts:
        new = slice(done, done + cut)
        parts.append(module(x[:, new], Context(x[:, new, 0], starts[:, new], done), cache))
        done += cut
    whole = module(x, Context(x[..., 0], starts), None)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_the_cache_holds_four_and_a_half_heads_a_token_and_layer() -> None:
    """ARCH-03: the latent vector takes 4 head_dim, the rotary key half a head_dim, for keys and values of all heads."""
    dim = 8
    module = latent(kv_rank=4 * dim, rope_dim=dim // 2, nope_dim=dim, value_dim=dim)
    numbers = module.new_cache(3, 100, torch.bfloat16, "cpu").bytes / 2
    assert numbers / (3 * 100) == 4.5 * dim
    assert 3 * module.config.kept(None, 100).values == numbers


@given(layer=latent_layers)
def test_the_recipe_counts_the_parameters_of_every_variant(layer: dict[str, Any]) -> None:
    config = section(**layer)
    module = LatentAttention(config.attention, config.around(0))
    counted = config.attention.count(config.around(0)).total
    assert sum(parameter.numel() for parameter in module.parameters()) == counted


def test_documents_do_not_see_each_other() -> None:
    module, x, starts = latent(), inputs(1, 12), starts_of([[5, 7]])
    whole = module(x, Context(x[..., 0], starts), None)
    apart = [module(part, Context(part[..., 0], None), None) for part in x.split([5, 7], 1)]
    torch.testing.assert_close(whole, torch.cat(apart, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("attention", "position", "message"),
    [
        ({"kv_rank": None}, {"kind": "rope"}, "kv_rank"),
        ({"rope_dim": 3}, {"kind": "rope"}, r"rope_dim \(3\) must be even"),
        ({}, {"kind": "alibi"}, "'alibi' does not go with attention 'mla'"),
        ({}, {"kind": "rope", "fraction": 0.5}, "position.fraction does not go with attention 'mla'"),
        (
            {},
            {"kind": "rope", "scaling": {"kind": "dual_chunk", "chunk": 8, "local": 2}},
            "'dual_chunk' does not go with attention 'mla'",
        ),
        ({"kv_heads": 2}, {"kind": "rope"}, "kv_heads"),
    ],
)
def test_impossible_latent_attention_is_refused_by_name(
    attention: dict[str, Any], position: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        section(attention={**FIELDS, **attention}, position=position)
