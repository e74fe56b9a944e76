"""Attention, positions and masks: facts, and every engine against a mask written out in full."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCAB, decoder, generator, section, starts_of, tokens
from torch import Tensor

from smelt.model.blockwise import LONGEST
from smelt.model.causal import causal, scaled_dot_product
from smelt.model.decoder import Decoder
from smelt.model.documents import PerDocument
from smelt.model.flex import Flex, block_mask
from smelt.model.masks import engine
from smelt.model.positions import positions, rotate, rotation


def qkv(batch: int, sequence: int, heads: int, kv_heads: int, head_dim: int) -> list[Tensor]:
    draw = generator(0)
    shapes = [(batch, sequence, count, head_dim) for count in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes]


def reference(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
    index = torch.arange(q.shape[1])
    mask = (index <= index[:, None]) & (index >= starts[:, :, None])
    return scaled_dot_product(q, k, v, mask[:, None])


def close(run, expected, inputs: list[Tensor]) -> None:
    out, wanted = run(*inputs), expected(*inputs)
    torch.testing.assert_close(out, wanted, rtol=0, atol=2e-5)
    upstream = torch.randn(out.shape, generator=generator(1))
    grads, wanted_grads = (torch.autograd.grad(x, inputs, upstream) for x in (out, wanted))
    torch.testing.assert_close(grads, wanted_grads, rtol=0, atol=5e-5)


documents = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@settings(max_examples=25)
@given(rows=st.lists(documents, min_size=1, max_size=3), kv_heads=st.sampled_from([1, 2, 4]))
def test_documents_attended_to_in_groups_equal_a_dense_mask(rows: list[list[int]], kv_heads: int) -> None:
    """ARCH-07: a packed row is its documents one by one, in value and gradient."""
    longest = max(map(sum, rows))
    rows = [[*row, longest - sum(row)] if sum(row) < longest else row for row in rows]
    starts = starts_of(rows)
    inputs = qkv(len(rows), longest, 4, kv_heads, 6)
    close(PerDocument(starts), lambda *qkv: reference(*qkv, starts), inputs)


@settings(max_examples=15)
@given(sequence=st.integers(1, 150), heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]))
def test_blocks_of_queries_equal_pytorch_attention(sequence: int, heads: tuple[int, int]) -> None:
    inputs = qkv(2, sequence, *heads, 6)
    close(causal, lambda q, k, v: scaled_dot_product(q, k, v, is_causal=True), inputs)


def test_rows_too_long_for_blocks_still_equal_a_dense_mask() -> None:
    starts = starts_of([[LONGEST + 9, 20], [29, LONGEST]])
    inputs = qkv(2, LONGEST + 29, 2, 1, 4)
    close(PerDocument(starts), lambda *qkv: reference(*qkv, starts), inputs)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@settings(max_examples=8)
@given(rows=st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=5), min_size=1, max_size=2))
def test_gpu_block_mask_sees_what_the_cpu_engine_sees(rows: list[list[int]]) -> None:
    """The engine for GPUs, run here without a kernel; only blocks that a document touches are visited."""
    longest = max(map(sum, rows))
    rows = [[*row, longest - sum(row)] if sum(row) < longest else row for row in rows]
    starts = starts_of(rows)
    inputs = [x.detach() for x in qkv(len(rows), longest, 4, 2, 16)]
    torch.testing.assert_close(Flex(starts)(*inputs), PerDocument(starts)(*inputs), rtol=0, atol=2e-5)
    index = torch.arange(longest)
    mask = (index <= index[:, None]) & (index >= starts[:, :, None])
    blocks = F.max_pool2d(F.pad(mask.float(), (0, -longest % 128, 0, -longest % 128)), 128)
    built = block_mask(starts)
    assert torch.equal(built.to_dense()[:, 0] > 0, blocks > 0)
    whole = torch.zeros_like(blocks, dtype=torch.bool)
    for row, query in itertools.product(range(len(rows)), range(blocks.shape[1])):
        whole[row, query, built.full_kv_indices[row, 0, query, : built.full_kv_num_blocks[row, 0, query]].long()] = True
    assert (F.avg_pool2d(mask.float(), 128, ceil_mode=True, count_include_pad=False)[whole] == 1).all()


def test_one_document_a_row_takes_the_plain_causal_engine() -> None:
    assert engine(tokens(2, 8), torch.zeros(2, 8, dtype=torch.int32)) is causal
    assert engine(tokens(2, 8), None) is causal


def test_altering_one_document_leaves_the_others_logits_alone() -> None:
    """ARCH-07: and without the document mask it does alter them."""
    model, starts = decoder(), starts_of([[5, 7, 4]])
    packed = tokens(1, 16)
    altered = packed.clone()
    altered[0, :5] = (altered[0, :5] + 1) % VOCAB
    assert torch.equal(model(packed, starts)[:, 5:], model(altered, starts)[:, 5:])
    assert not torch.allclose(model(packed)[:, 5:], model(altered)[:, 5:])


def test_a_packed_batch_equals_its_documents_one_by_one() -> None:
    """ARCH-07: logits, losses and gradients, with rotary positions that restart."""
    lengths = [[5, 7, 4], [1, 15], [16], [3, 3, 3, 3, 3, 1]]
    model = decoder(section(per_layer=[{"layers": 1, "position": {"kind": "none"}}]))
    x, y, starts = tokens(4, 16), tokens(4, 16, seed=1), starts_of(lengths)
    packed = model(x, starts, targets=y)
    pieces = [
        model(part_x[None], targets=part_y[None])[0]
        for row_x, row_y, row in zip(x, y, lengths, strict=True)
        for part_x, part_y in zip(row_x.split(row), row_y.split(row), strict=True)
    ]
    alone = torch.cat(pieces).view(4, 16)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
    parameters = list(model.parameters())
    grads, wanted = (torch.autograd.grad(loss.sum(), parameters) for loss in (packed, alone))
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-4)


def test_grouped_queries_with_as_many_kv_heads_are_multi_head_attention() -> None:
    """ARCH-01: repeating each key-value head's weights turns grouped-query into the equal multi-head model."""
    grouped = decoder(section(attention={"heads": 4, "kv_heads": 2}))
    many = Decoder(section(attention={"heads": 4, "kv_heads": 4}), VOCAB)
    weights = grouped.state_dict()
    for name in weights:
        if name.endswith(("attention.k.weight", "attention.v.weight")):
            weights[name] = weights[name].unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
    many.load_state_dict(weights)
    x = tokens(2, 11)
    torch.testing.assert_close(grouped(x), many(x), rtol=0, atol=1e-5)


def test_multi_query_attention_has_one_key_value_head() -> None:
    """ARCH-01"""
    model = decoder(section(attention={"heads": 4, "kv_heads": 1}))
    assert model.layers[0].attention.k.weight.shape == (8, 32)
    assert model(tokens(1, 5)).isfinite().all()


def test_pair_0_at_position_3_turns_by_3_radians() -> None:
    """ARCH-09"""
    cosines, sines = rotation(torch.tensor([[3]]), theta=10_000.0, head_dim=8)
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = 1
    turned = rotate(x, (cosines, sines)).flatten()
    angle = torch.tensor(3.0)
    assert torch.allclose(turned[[0, 4]], torch.stack((angle.cos(), angle.sin())))
    assert turned[[1, 2, 3, 5, 6, 7]].abs().max() == 0


@given(near=st.integers(0, 500), far=st.integers(0, 500), shift=st.integers(0, 500))
def test_scores_depend_on_position_differences_alone(near: int, far: int, shift: int) -> None:
    """ARCH-09"""
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator(0), dtype=torch.float64)

    def score(query: int, key: int) -> Tensor:
        turned = [rotate(x, rotation(torch.tensor([[at]]), 1e4, 16)) for x, at in ((q, query), (k, key))]
        return (turned[0] * turned[1]).sum() / 16

    torch.testing.assert_close(score(near, far), score(near + shift, far + shift), rtol=0, atol=2e-5)


def test_pair_0_is_the_fastest_and_a_larger_theta_slows_the_others() -> None:
    """ARCH-09"""
    low, high = (rotation(torch.tensor([[1]]), theta, 16)[1].flatten()[8:].asin() for theta in (1e4, 1e6))
    assert (low.diff() < 0).all()
    assert torch.equal(low[:1], high[:1]) and (high[1:] < low[1:]).all()


def test_theta_can_change_when_weights_are_loaded() -> None:
    """ARCH-09: adjusted base frequency needs no other weights."""
    model = decoder()
    slower = Decoder(section(position={"kind": "rope", "theta": 1e6}), VOCAB)
    slower.load_state_dict(model.state_dict())
    assert not torch.allclose(model(tokens(1, 9)), slower(tokens(1, 9)))


def test_only_the_chosen_layers_go_without_rotation() -> None:
    """ARCH-11: with every layer chosen, moving a document does not change it; each layer asks for its own theta."""
    config = section(layers=4, per_layer=[{"layers": "3::4", "position": {"kind": "none"}}])
    assert [layer.position.kind for layer in decoder(config).layers] == ["rope", "rope", "rope", "none"]


def test_positions_restart_with_each_document() -> None:
    starts = starts_of([[2, 3]])
    assert positions(starts, 0, 5, starts.device).tolist() == [[0, 1, 0, 1, 2]]
    assert positions(starts[:, :1] + 4, 7, 1, starts.device).tolist() == [[3]]
