"""Attention engines: every scope against its definition, written out with a full mask, and documents in one row."""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCAB, decoder, generator, section, starts_of, tokens
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from smelt.model import blocks, cpu
from smelt.model.context import Context
from smelt.model.flex import BLOCK, Flex, block_mask
from smelt.model.masks import Scope, dense, engine
from smelt.model.positions import positions
from smelt.model.scope import slopes

CPU = torch.device("cpu")
PLAIN = Scope(scale=0.3)


def written_out(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None, *, scope: Scope, starts: Tensor | None = None
) -> Tensor:
    """Attention by its definition: all scores, a mask, a softmax; in the dtype of `q`."""
    group = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(group, 2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scope.scale
    index = torch.arange(q.shape[1])
    begins = torch.zeros(q.shape[:2], dtype=torch.int64) if starts is None else starts.long()
    inside = index - begins  # [batch, seq]: position in the document
    same = begins[:, :, None] == begins[:, None]
    distance = index[:, None] - index
    if scope.softcap is not None:
        scores = scope.softcap * torch.tanh(scores / scope.softcap)
    if scope.alibi:
        scores = scores - torch.tensor(scope.alibi, dtype=q.dtype)[:, None, None] * distance
    seen = same & (distance >= 0)
    if scope.window is not None:
        seen &= (distance < scope.window) | (inside[:, None] < scope.sink_tokens)
    if scope.chunk is not None:
        seen &= inside[:, :, None] // scope.chunk == inside[:, None] // scope.chunk
    weights = scores.masked_fill(~seen[:, None], -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.to(q.dtype).exp()[:, None, None]
    return torch.einsum("bhqk,bkhd->bqhd", weights / total, v)


def qkv(
    batch: int, sequence: int, heads: tuple[int, int], dims: tuple[int, int] = (6, 6), dtype: torch.dtype = torch.double
) -> list[Tensor]:
    draw = generator(0)
    shapes = [(heads[0], dims[0]), (heads[1], dims[0]), (heads[1], dims[1])]
    return [torch.randn(batch, sequence, *shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes]


def filled(rows: list[list[int]]) -> Tensor:
    """`starts` of rows of documents; a last document fills the shorter rows."""
    longest = max(map(sum, rows))
    return starts_of([[*row, longest - sum(row)] if sum(row) < longest else row for row in rows])


def close(run: Any, expected: Any, inputs: list[Tensor], tolerance: float = 1e-9) -> None:
    """Equal values and gradients."""
    out, wanted = run(*inputs), expected(*inputs)
    torch.testing.assert_close(out, wanted, rtol=0, atol=tolerance)
    upstream = torch.randn(out.shape, generator=generator(1), dtype=out.dtype)
    grads, wanted_grads = (torch.autograd.grad(x, inputs, upstream) for x in (out, wanted))
    torch.testing.assert_close(grads, wanted_grads, rtol=0, atol=20 * tolerance)


@contextmanager
def engine_settings(keep: bool, elements: int = 1 << 21, longest: int = 512) -> Iterator[None]:
    """Probabilities kept or computed twice; blocks with few rows; rows too long for blocks where PyTorch's will do."""
    with (
        patch.object(cpu, "WIDEST", 8 if keep else 0),
        patch.object(cpu, "LONGEST", longest),
        patch.object(blocks, "ELEMENTS", elements),
    ):
        yield


@st.composite
def scopes(draw: Any, widest: int) -> Scope:
    window = draw(st.none() | st.integers(1, widest))
    return Scope(
        scale=0.3,
        window=window,
        sink_tokens=draw(st.integers(0, 20)) if window else 0,
        chunk=None if window else draw(st.none() | st.integers(1, 60)),
        softcap=draw(st.sampled_from([None, 1.5])),
        alibi=draw(st.sampled_from([(), slopes(6)])),
    )


def with_heads(scope: Scope, heads: int) -> Scope:
    """`scope` for the first `heads` heads, of 6 that ALiBi has slopes for."""
    return dataclasses.replace(scope, alibi=scope.alibi[:heads])


documents = st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=5), min_size=1, max_size=3)
head_counts = st.sampled_from([(4, 4), (4, 2), (3, 1), (6, 3)])


@settings(max_examples=60)
@given(
    scope=scopes(150),
    rows=documents,
    packed=st.booleans(),
    heads=head_counts,
    value_dim=st.sampled_from([6, 3]),
    with_sinks=st.booleans(),
    keep=st.booleans(),
    elements=st.sampled_from([1 << 21, 3000]),
)
def test_the_engine_for_cpus_computes_every_scope(
    scope: Scope,
    rows: list[list[int]],
    packed: bool,
    heads: tuple[int, int],
    value_dim: int,
    with_sinks: bool,
    keep: bool,
    elements: int,
) -> None:
    """ARCH-07, ARCH-13, ARCH-14: in value and gradient, with and without documents, kept or computed twice."""
    scope = with_heads(scope, heads[0])
    starts = filled(rows)
    inputs = qkv(len(rows), starts.shape[1], heads, (6, value_dim))
    if with_sinks:
        inputs.append(torch.linspace(-2, 3, heads[0], dtype=torch.double).requires_grad_())
    given_starts = starts if packed else None
    with engine_settings(keep, elements):
        close(
            engine(given_starts, CPU, scope),
            lambda *inputs: written_out(*inputs, scope=scope, starts=given_starts),
            inputs,
        )


@given(heads=head_counts, value_dim=st.sampled_from([6, 3]))
@settings(max_examples=5)
def test_long_plain_rows_are_left_to_pytorch_where_it_needs_no_mask(heads: tuple[int, int], value_dim: int) -> None:
    inputs = qkv(2, 40, heads, (6, value_dim))
    with engine_settings(keep=False, longest=39):
        close(engine(None, CPU, PLAIN), lambda *inputs: written_out(*inputs, scope=PLAIN), inputs)


@pytest.mark.parametrize("keep", [True, False])
def test_many_blocks_of_queries_of_long_documents(keep: bool) -> None:
    """A window over several blocks, whose first tokens stay visible."""
    starts, scope = starts_of([[300, 40], [5, 335]]), Scope(0.3, window=100, sink_tokens=3)
    with engine_settings(keep, elements=20_000):
        close(
            engine(starts, CPU, scope),
            lambda *inputs: written_out(*inputs, scope=scope, starts=starts),
            qkv(2, 340, (4, 2)),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", [True, False])
def test_low_precision_is_as_near_the_truth_as_pytorchs_attention(dtype: torch.dtype, keep: bool) -> None:
    inputs = [x.detach().to(dtype).requires_grad_() for x in qkv(2, 200, (4, 4), (32, 32))]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    starts = torch.zeros(2, 200, dtype=torch.int32)

    def pytorch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3).transpose(1, 2)

    def values(run: Any, inputs: list[Tensor]) -> list[Tensor]:
        out = run(*inputs)
        upstream = torch.randn(out.shape, generator=generator(1)).to(dtype)
        return [out.detach(), *torch.autograd.grad(out, inputs, upstream.to(out.dtype))]

    with engine_settings(keep):
        ours = values(engine(starts, CPU, PLAIN), inputs)
    theirs = values(pytorch, inputs)
    truth = values(lambda *exact: written_out(*exact, scope=PLAIN), exact)
    for mine, other, true in zip(ours, theirs, truth, strict=True):
        assert mine.dtype == dtype
        assert (mine - true).norm() < 2 * (other - true).norm() < 0.02 * true.norm()


def seen_by(token: int, scope: Scope, length: int = 16) -> list[int]:
    """The tokens whose values reach `token`."""
    q, k, _ = qkv(1, length, (1, 1))
    v = torch.eye(length, dtype=torch.double)[None, :, None]
    return engine(None, CPU, scope)(q, k, v)[0, token, 0].nonzero().flatten().tolist()


def test_a_window_of_8_lets_token_15_see_8_to_15_and_token_10_see_3_to_10() -> None:
    """ARCH-13"""
    window = Scope(1.0, window=8)
    assert seen_by(15, window) == list(range(8, 16))
    assert seen_by(10, window) == list(range(3, 11))


def test_chunks_of_8_stop_tokens_8_to_15_from_seeing_0_to_7() -> None:
    """ARCH-13"""
    for token in range(8, 16):
        assert seen_by(token, Scope(1.0, chunk=8)) == list(range(8, token + 1))


def test_the_first_tokens_stay_visible_beside_a_window() -> None:
    """ARCH-14"""
    assert seen_by(15, Scope(1.0, window=4, sink_tokens=2)) == [0, 1, 12, 13, 14, 15]


def test_a_sink_of_minus_infinity_is_the_ordinary_softmax() -> None:
    """ARCH-14: and any other takes probability away."""
    inputs = [x.detach().float() for x in qkv(1, 20, (2, 1))]
    ordinary = engine(None, CPU, PLAIN)(*inputs)
    assert torch.equal(engine(None, CPU, PLAIN)(*inputs, torch.full((2,), -torch.inf)), ordinary)
    ones = [*inputs[:2], torch.ones_like(inputs[2])]
    assert (engine(None, CPU, PLAIN)(*ones, torch.zeros(2)) < 1).all()


def test_alibi_slopes_are_those_published() -> None:
    """Press et al. 2022: 8 heads 1/2 to 1/256; other counts interleave those of twice the power of two below."""
    assert slopes(8) == tuple(2**-i for i in range(1, 9))
    assert slopes(6) == (2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3)
    assert len(slopes(12)) == 12 and slopes(1) == (2**-8,)


@settings(max_examples=25)
@given(
    scope=scopes(30),
    row=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    new=st.integers(1, 4),
    heads=head_counts,
    with_sinks=st.booleans(),
    packed=st.booleans(),
)
def test_cached_decoding_sees_what_the_engines_see(
    scope: Scope, row: list[int], new: int, heads: tuple[int, int], with_sinks: bool, packed: bool
) -> None:
    """ARCH-04: with keys in any order and empty places among them."""
    scope = with_heads(scope, heads[0])
    starts = filled([row, [sum(row)]]) if packed else None
    sequence = sum(row)
    new = min(new, sequence)
    q, k, v = (x.detach() for x in qkv(2, sequence, heads, (6, 4)))
    sinks = torch.linspace(-1, 2, heads[0]) if with_sinks else None
    wanted = written_out(q, k, v, sinks, scope=scope, starts=starts)[:, -new:]
    late = None if starts is None else starts[:, -new:]
    context = Context(torch.zeros(2, new, dtype=torch.int64), late, sequence - new)
    found = dense(q[:, -new:], k, v, torch.arange(sequence), context, scope, sinks)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    order = torch.randperm(sequence, generator=generator(2))
    gap = [torch.cat((torch.full_like(x[:, :1], 9.0), x[:, order]), 1) for x in (k, v)]
    index = torch.cat((torch.tensor([-1]), order)).expand(2, -1)
    found = dense(q[:, -new:], *gap, index, context, scope, sinks)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_compiled_engines_serve_every_batch_of_documents_with_one_graph() -> None:
    """No graph break, and no compilation for new documents; with documents or without, equal to the plain engine."""
    scope = Scope(0.3, window=9, sink_tokens=2, alibi=slopes(4))
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, starts: Tensor | None) -> Tensor:
        return engine(starts, CPU, scope)(q, k, v, sinks) + engine(starts, CPU, Scope(0.3, chunk=7))(q, k, v)

    inputs = [*qkv(2, 30, (4, 2)), torch.zeros(4, dtype=torch.double, requires_grad=True)]
    for graphs, rows in ((1, [[9, 21], [30]]), (1, [[30], [30]]), (1, [[1, 2, 27], [15, 15]]), (2, None)):
        starts = None if rows is None else starts_of(rows)
        close(
            lambda *inputs, starts=starts: compiled(*inputs, starts),
            lambda *inputs, starts=starts: (
                written_out(*inputs, scope=scope, starts=starts)
                + written_out(*inputs[:3], scope=Scope(0.3, chunk=7), starts=starts)
            ),
            inputs,
        )
        assert counter.frame_count == graphs


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("sequence", [1, 63, 64, 65, 200])
def test_a_compiler_gets_short_whole_rows_as_plain_operations(heads: tuple[int, int], sequence: int) -> None:
    """Equal to the plain engine, gradients too, and no operator of ours is left in the graph."""
    torch._dynamo.reset()  # every case is one more graph of the same function
    torch.compiler.reset()
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    @torch.compile(fullgraph=True, backend=keep, dynamic=False)
    def compiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return engine(None, CPU, Scope(0.3))(q, k, v)

    inputs = qkv(2, sequence, heads, (16, 8))
    close(compiled, lambda q, k, v: written_out(q, k, v, scope=Scope(0.3)), inputs)
    assert graphs and all("smelt" not in code for code in graphs)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@settings(max_examples=12)
@given(
    scope=scopes(300),
    rows=st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=4), min_size=1, max_size=2),
    packed=st.booleans(),
    with_sinks=st.booleans(),
)
def test_the_engine_for_gpus_computes_every_scope(
    scope: Scope, rows: list[list[int]], packed: bool, with_sinks: bool
) -> None:
    """Run here without a kernel, forward alone; visited are the blocks that are seen, without a mask the whole ones."""
    scope = with_heads(scope, 4)
    starts = filled(rows)
    sequence = starts.shape[1]
    inputs = [x.detach().float() for x in qkv(len(rows), sequence, (4, 2), (16, 8))]
    sinks = torch.linspace(-1, 2, 4) if with_sinks else None
    given_starts = starts if packed else None
    wanted = written_out(*inputs, sinks, scope=scope, starts=given_starts)
    torch.testing.assert_close(Flex(given_starts, scope)(*inputs, sinks), wanted, rtol=0, atol=2e-5)
    index = torch.arange(sequence)
    begins = starts[:, :, None] if packed else torch.zeros(1, 1, 1, dtype=torch.int32)
    mask = scope.sees(index[:, None], index, begins).float()
    blocks = F.max_pool2d(F.pad(mask, (0, -sequence % BLOCK, 0, -sequence % BLOCK)), BLOCK)
    built = block_mask(given_starts, scope, sequence, CPU)
    assert torch.equal(built.to_dense()[:, 0] > 0, blocks > 0)
    whole = torch.zeros_like(blocks, dtype=torch.bool)
    for row, query in itertools.product(range(len(blocks)), range(blocks.shape[1])):
        whole[row, query, built.full_kv_indices[row, 0, query, : built.full_kv_num_blocks[row, 0, query]].long()] = True
    assert (F.avg_pool2d(mask, BLOCK, ceil_mode=True, count_include_pad=False)[whole] == 1).all()


def test_documents_changed_in_place_are_noticed() -> None:
    """A buffer of `starts` that is filled again for every batch never serves old documents."""
    starts, inputs = starts_of([[9, 7]]), [x.detach() for x in qkv(1, 16, (2, 2))]
    attend = engine(starts, CPU, PLAIN)
    before = attend(*inputs)
    starts.copy_(starts_of([[4, 12]]))
    assert not torch.equal(attend(*inputs), before)
    torch.testing.assert_close(attend(*inputs), written_out(*inputs, scope=PLAIN, starts=starts))


def test_altering_one_document_leaves_the_others_logits_alone() -> None:
    """ARCH-07: and without the document mask it does alter them."""
    model, starts = decoder(), starts_of([[5, 7, 4]])
    packed = tokens(1, 16)
    altered = packed.clone()
    altered[0, :5] = (altered[0, :5] + 1) % VOCAB
    assert torch.equal(model(packed, starts)[:, 5:], model(altered, starts)[:, 5:])
    assert not torch.allclose(model(packed)[:, 5:], model(altered)[:, 5:])


def test_a_document_that_overflows_leaves_the_others_alone() -> None:
    """ARCH-07: not even NaN passes, in value or gradient."""
    starts, inputs = starts_of([[5, 7, 4]]), qkv(1, 16, (2, 1))
    for x in inputs:
        x.data[:, 5:12] = torch.nan
    out = engine(starts, CPU, Scope(0.3, window=3))(*inputs)
    grads = torch.autograd.grad(out, inputs, torch.ones_like(out))
    for x in (out, *grads):
        assert x[:, :5].isfinite().all() and x[:, 12:].isfinite().all() and x[:, 5:12].isnan().all()


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


def test_only_the_chosen_layers_go_without_rotation() -> None:
    """ARCH-11: without it, the order of the tokens before is lost on the last one."""
    model = decoder(section(layers=4, per_layer=[{"layers": "3::4", "position": {"kind": "none"}}]))
    x = torch.randn(1, 6, 32, generator=generator())
    context, mixed = Context(tokens(1, 6), None), x[:, [3, 0, 4, 1, 2, 5]]
    last = [[layer.attention(y, context, None)[:, -1] for y in (x, mixed)] for layer in model.layers]
    assert [torch.allclose(*pair, atol=1e-5) for pair in last] == [False, False, False, True]


def test_positions_restart_with_each_document() -> None:
    starts = starts_of([[2, 3]])
    assert positions(starts, 0, 5, starts.device).tolist() == [[0, 1, 0, 1, 2]]
    assert positions(starts[:, :1] + 4, 7, 1, starts.device).tolist() == [[3]]
