"""Grouped-query attention and all that can be added to it, against the same written out in full."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_models import generator, section, starts_of
from torch import Tensor, nn
from variants import grouped_layers

from smelt.model.attention import GroupedQueryAttention
from smelt.model.context import Context
from smelt.model.positions import rotate, rotation

HIDDEN = 32


def attention(position: Any = None, norm: Any = None, **fields: Any) -> GroupedQueryAttention:
    """A module with random weights, in evaluation mode."""
    position = position or {"kind": "none"}
    config = section(attention={"heads": 4, "kv_heads": 2, **fields}, position=position, norm=norm or {})
    module = GroupedQueryAttention(config.attention, config.around(0)).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator(name)))
    return module


def inputs(sequence: int, batch: int = 2, seed: object = "x") -> Tensor:
    return torch.randn(batch, sequence, HIDDEN, generator=generator(seed))


def run(module: GroupedQueryAttention, x: Tensor, starts: Tensor | None = None) -> Tensor:
    return module(x, Context(x[..., 0], starts), None)


def root_mean_square(x: Tensor, norm: Any) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * (norm.weight.double() + norm.zero_centered)


def written_out(module: GroupedQueryAttention, x: Tensor, starts: Tensor) -> Tensor:
    """The module in float64, with every score and the whole mask in memory."""
    c, dim, x = module.config, module.head_dim, x.double()
    q, k, v = (x @ m.weight.double().T + (0 if m.bias is None else m.bias) for m in (module.q, module.k, module.v))
    if c.qk_norm == "full":
        q, k = root_mean_square(q, module.q_norm), root_mean_square(k, module.k_norm)
    q, k, v = (part.unflatten(-1, (-1, dim)) for part in (q, k, v))
    if c.qk_norm == "head":
        q, k = root_mean_square(q, module.q_norm), root_mean_square(k, module.k_norm)
    row = torch.arange(x.shape[1])
    place = row - starts  # [batch, seq]
    if module.rotary is not None:
        turn = rotation(place, module.rotary.part, module.rotary.channels)
        q, k = rotate(q, turn), rotate(k, turn)
    k, v = (part.repeat_interleave(c.heads // c.kv_heads, 2) for part in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (c.scale or dim**-0.5)
    if c.softcap is not None:
        scores = c.softcap * (scores / c.softcap).tanh()
    if module.scope.alibi:
        slopes = torch.tensor([2.0 ** (-8 * (head + 1) / c.heads) for head in range(c.heads)]).double()
        scores = scores - slopes[:, None, None] * (row[:, None] - row)
    sees = (row <= row[:, None]) & (starts[:, :, None] == starts[:, None, :])
    if c.window:
        sees &= (row[:, None] - row < c.window) | (place[:, None, :] < c.sink_tokens)
    if c.chunk:
        sees &= place[:, :, None] // c.chunk == place[:, None, :] // c.chunk
    scores = scores.masked_fill(~sees[:, None], -torch.inf)
    if module.sinks is not None:
        scores = torch.cat((scores, module.sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)), -1)
    heads = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1)[..., : x.shape[1]], v)
    if module.gate is not None:
        heads = heads * (x @ module.gate.weight.double().T).sigmoid().unflatten(-1, (c.heads, -1))
    return heads.flatten(-2) @ module.o.weight.double().T + (0 if module.o.bias is None else module.o.bias)


@settings(max_examples=40)
@given(
    layer=grouped_layers,
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=3),
    zero_centered=st.booleans(),
)
def test_every_variant_equals_the_same_written_out(
    layer: dict[str, Any], lengths: list[int], zero_centered: bool
) -> None:
    """ARCH-13, ARCH-14: windows, chunks, first tokens, sinks, biases, norms, gates, caps; in each document alone."""
    module = attention(layer["position"], {"zero_centered": zero_centered, "eps": 1e-3}, **layer["attention"])
    x, starts = inputs(sum(lengths)), starts_of([lengths, lengths[::-1]])
    out = run(module, x, starts if len(lengths) > 1 else None)
    torch.testing.assert_close(out, written_out(module, x, starts).float(), rtol=1e-5, atol=1e-5)


@given(layer=grouped_layers)
def test_the_recipe_counts_the_parameters_of_every_variant(layer: dict[str, Any]) -> None:
    config = section(**layer)
    module = GroupedQueryAttention(config.attention, config.around(0))
    counted = config.attention.count(config.around(0)).total
    assert sum(parameter.numel() for parameter in module.parameters()) == counted


def test_with_as_many_kv_heads_as_heads_it_is_pytorchs_multi_head_attention() -> None:
    """ARCH-01"""
    module, other = attention(kv_heads=4), nn.MultiheadAttention(HIDDEN, 4, bias=False, batch_first=True)
    x = inputs(11)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat((module.q.weight, module.k.weight, module.v.weight)))
        other.out_proj.weight.copy_(module.o.weight)
        mask = nn.Transformer.generate_square_subsequent_mask(11)
        expected, _ = other(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        torch.testing.assert_close(run(module, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_sharing_a_key_value_head_is_multi_head_attention_with_equal_heads(kv_heads: int) -> None:
    """ARCH-01: grouped-query and multi-query attention."""
    shared, full = attention(kv_heads=kv_heads), attention(kv_heads=4)
    weights = dict(shared.state_dict())
    for name in ("k.weight", "v.weight"):
        heads = weights[name].unflatten(0, (kv_heads, -1))
        weights[name] = heads.repeat_interleave(4 // kv_heads, 0).flatten(0, 1)
    full.load_state_dict(weights)
    torch.testing.assert_close(run(shared, inputs(9)), run(full, inputs(9)), rtol=1e-5, atol=1e-6)


def seen_by(module: GroupedQueryAttention, query: int, sequence: int = 16) -> list[int]:
    """The tokens whose change changes what `query` reads."""
    x = inputs(sequence, batch=1).requires_grad_()
    run(module, x)[0, query].sum().backward()
    assert x.grad is not None
    return x.grad[0].abs().sum(-1).nonzero().flatten().tolist()


def test_a_window_of_8_lets_token_15_see_8_to_15_and_token_10_see_3_to_10() -> None:
    """ARCH-13"""
    module = attention(window=8)
    assert seen_by(module, 15) == list(range(8, 16))
    assert seen_by(module, 10) == list(range(3, 11))


def test_chunks_of_8_stop_tokens_8_to_15_from_seeing_0_to_7() -> None:
    """ARCH-13"""
    module = attention(chunk=8)
    assert [seen_by(module, query) for query in (7, 8, 15)] == [list(range(8)), [8], list(range(8, 16))]


def test_the_first_tokens_stay_visible_beside_the_window() -> None:
    """ARCH-14"""
    assert seen_by(attention(window=4, sink_tokens=2), 15) == [0, 1, 12, 13, 14, 15]
    assert seen_by(attention(window=4, sink_tokens=2), 3) == [0, 1, 2, 3]


def test_sinks_at_minus_infinity_leave_the_ordinary_softmax() -> None:
    """ARCH-14"""
    module, plain, x = attention(sinks=True), attention(), inputs(9)
    plain.load_state_dict({name: value for name, value in module.state_dict().items() if name != "sinks"})
    with torch.no_grad():
        module.sinks.fill_(-torch.inf)
        torch.testing.assert_close(run(module, x), run(plain, x), rtol=1e-5, atol=1e-6)
        module.sinks.fill_(50.0)  # a sink that takes all leaves nothing
        assert run(module, x).abs().max() < 1e-6


def test_a_sink_takes_probability_of_exp_of_its_logit() -> None:
    """ARCH-14: the first token alone gets 1 / (1 + exp(sink - score))."""
    module, plain, x = attention(sinks=True), attention(), inputs(1)
    plain.load_state_dict({name: value for name, value in module.state_dict().items() if name != "sinks"})
    with torch.no_grad():
        module.o.weight.copy_(torch.eye(HIDDEN))
        plain.o.weight.copy_(torch.eye(HIDDEN))
        q, k, _ = module.project(x)
        score = (q * k.repeat_interleave(2, 2)).sum(-1) * module.scope.scale  # [batch, 1, heads]
        share = (1 / (1 + (module.sinks - score).exp()))[..., None]
        torch.testing.assert_close(run(module, x), (run(plain, x).unflatten(-1, (4, -1)) * share).flatten(-2))


@pytest.mark.parametrize("kind", ["head", "full"])
def test_qk_norm_bounds_the_logits_whatever_the_scale_of_the_activations(kind: str) -> None:
    """ARCH-17: |q . k| <= |q| |k|, each at most the root of its channels times its largest norm weight."""

    def logits(module: GroupedQueryAttention, scale: float) -> Tensor:
        q, k, _ = module.project(inputs(12) * scale)
        return torch.einsum("bqgd,bkgd->bgqk", q[:, :, ::2], k) * module.scope.scale

    module, free = attention(qk_norm=kind), attention()
    lengths = [norm.weight.detach().abs().max() * norm.weight.numel() ** 0.5 for norm in (module.q_norm, module.k_norm)]
    bound = float(lengths[0] * lengths[1] * module.scope.scale)
    for scale in (1.0, 1e2, 1e4):
        assert logits(module, scale).abs().max() <= bound * 1.001
    torch.testing.assert_close(logits(module, 1e2), logits(module, 1e4), rtol=1e-3, atol=1e-3)
    assert logits(free, 1e2).abs().max() > 100 * bound


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"heads": 4, "kv_heads": 3}, r"heads \(4\) must be divisible by kv_heads \(3\)"),
    ({"heads": 3, "kv_heads": 1}, r"hidden \(32\) must be divisible by heads \(3\)"),
    ({"heads": 4, "kv_heads": 4, "head_dim": 5}, r"head_dim \(5\) times position.fraction \(1\) must be even"),
    ({"heads": 4, "kv_heads": 4, "window": 8, "chunk": 8}, "exclude each other"),
    ({"heads": 4, "kv_heads": 4, "sink_tokens": 2}, "needs a window"),
    ({"heads": 4, "kv_heads": 4, "window": 0}, "window"),
    ({"heads": 4, "kv_heads": 4, "softcap": 0}, "softcap"),
    ({"heads": 4, "kv_heads": 4, "qk_norm": "layer"}, "qk_norm"),
    ({"kind": "none", "window": 8}, "window"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_impossible_attention_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(attention=fields)


@pytest.mark.parametrize("scope", ["window", "chunk"])
def test_dual_chunk_attention_with_another_scope_is_refused(scope: str) -> None:
    scaled = {"kind": "rope", "scaling": {"kind": "dual_chunk", "chunk": 8, "local": 3}}
    with pytest.raises(ValidationError, match=f"'dual_chunk' does not go with {scope}"):
        section(attention={"heads": 4, "kv_heads": 2, scope: 8}, position=scaled)
