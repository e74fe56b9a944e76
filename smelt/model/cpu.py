"""The attention engine for CPUs: one operator, which torch.compile takes as it is, documents and all.

What depends on where documents begin is decided inside the operator, so one compiled graph serves every batch.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from smelt.model.blocks import BLOCK
from smelt.model.blockwise import Rows, Tape
from smelt.model.dense import scaled_dot_product
from smelt.model.documents import SHORT, WASTE, Documents, documents
from smelt.model.in_graph import attention_in_graph
from smelt.model.scope import Scope

LONGEST = 512  # tokens of rows that keep their probabilities for the backward pass
WIDEST = 2  # bytes of a number that is kept: for float32, computing it again takes no longer


class Blockwise:
    """The engine of a layer; `starts`, int32 `[batch, seq]`, is where each token's document begins (None: 0)."""

    def __init__(self, starts: Tensor | None, scope: Scope) -> None:
        self.starts, self.scope = starts, scope

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None) -> Tensor:
        scope, sequence = self.scope, q.shape[1]
        short = sequence <= LONGEST
        if self.starts is None and scope.plain and sinks is None:
            if short and torch.compiler.is_compiling():
                return attention_in_graph(q, k, v, scope.scale)
            if not short and k.shape[-1] == v.shape[-1]:
                return scaled_dot_product(q, k, v, scope.scale, is_causal=True)
        keep = short and q.itemsize <= WIDEST and scope.softcap is None and torch.is_grad_enabled() and q.requires_grad
        starts = self.starts
        if scope.chunk is not None and scope.chunk < sequence:
            starts = _chunks(starts, scope.chunk, q)
        out: Tensor = attention(
            q, k, v, sinks, starts, scope.scale, scope.window, scope.sink_tokens, scope.softcap, scope.alibi, keep
        )[0]
        return out


def _chunks(starts: Tensor | None, chunk: int, q: Tensor) -> Tensor:
    """`starts` with every chunk of a document a document of its own."""
    index = torch.arange(q.shape[1], dtype=torch.int32).expand(q.shape[:2])
    return index // chunk * chunk if starts is None else starts + (index - starts) // chunk * chunk


@torch.library.custom_op("smelt::attention", mutates_args=(), device_types="cpu")
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    starts: Tensor | None,
    scale: float,
    window: int | None,
    sink_tokens: int,
    softcap: float | None,
    alibi: Sequence[float],
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention `[batch, seq, heads, value_dim]`, and for the backward pass, else empty:

    the share of each query that its sink takes, `[batch, seq, heads]`, and all probabilities, flat, if `keep`.
    """
    plan, scope = documents(starts), Scope(scale, window, sink_tokens, None, softcap, tuple(alibi))
    kept = q.new_empty(_room(q) if keep else 0)
    tape = Tape(kept) if keep else None
    outs, shares = [], []
    for rows in _rows(plan, q, k, v, scope):
        out, share = rows.forward(None if sinks is None else _of_rows(sinks, rows), tape)
        outs.append(out)
        shares += [] if share is None else [share]
    share = plan.join(shares, len(q), k.shape[2]).squeeze(-1) if sinks is not None else q.new_empty(0)
    return plan.join(outs, len(q), k.shape[2]), share, kept


@attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, starts: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *_, keep = rest
    out = q.new_empty(*q.shape[:3], v.shape[-1])
    share = q.new_empty(0) if sinks is None else sinks.new_empty(q.shape[:3])
    return out, share, q.new_empty(_room(q) if keep else 0)


@torch.library.custom_op("smelt::attention_backward", mutates_args=(), device_types="cpu")
def attention_backward(
    grad: Tensor,
    inner: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor | None,
    share: Tensor,
    kept: Tensor,
    scale: float,
    window: int | None,
    sink_tokens: int,
    softcap: float | None,
    alibi: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from `grad`, that of the attention, and `inner` `[batch, seq, heads, 1]`."""
    plan, scope = documents(starts), Scope(scale, window, sink_tokens, None, softcap, tuple(alibi))
    batch, kv_heads = len(q), k.shape[2]
    tape = Tape(kept) if kept.numel() else None
    grads = plan.queries(grad, kv_heads, padding=0.0)
    inners = plan.queries(inner, kv_heads, padding=0.0)
    shares = plan.queries(share[..., None], kv_heads) if share.numel() else [None] * len(grads)
    parts = [
        rows.backward(*given, tape)
        for rows, *given in zip(_rows(plan, q, k, v, scope), grads, inners, shares, strict=True)
    ]
    grad_q, grad_k, grad_v = zip(*parts, strict=True)
    return (
        plan.join(list(grad_q), batch, kv_heads),
        plan.join_keys(list(grad_k), batch, kv_heads),
        plan.join_keys(list(grad_v), batch, kv_heads),
    )


@attention_backward.register_fake
def _(grad: Tensor, inner: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, sinks, starts, *scope, _ = inputs
    out, share, kept = output
    ctx.save_for_backward(q, k, v, starts, out, share, kept)
    ctx.scope, ctx.sinks = scope, sinks is not None
    ctx.mark_non_differentiable(share, kept)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    q, k, v, starts, out, share, kept = ctx.saved_tensors
    inner = (grad * out).sum(-1, keepdim=True, dtype=torch.promote_types(grad.dtype, torch.float32))
    grads = attention_backward(grad, inner.to(grad.dtype), q, k, v, starts, share, kept, *ctx.scope)
    # A sink's value is nothing, so its logit's gradient is -share * inner.
    grad_sinks = -(share * inner.squeeze(-1)).sum((0, 1)) if ctx.sinks else None
    return *grads, grad_sinks, *[None] * 7


attention.register_autograd(_backward, setup_context=_setup)


def _rows(plan: Documents, q: Tensor, k: Tensor, v: Tensor, scope: Scope) -> Iterator[Rows]:
    """The rows of each group of documents."""
    for parts in zip(plan.queries(q, k.shape[2]), plan.keys(k), plan.keys(v), strict=True):
        rows = Rows(*parts, scope)
        yield dataclasses.replace(rows, slopes=_of_rows(torch.tensor(scope.alibi), rows)) if scope.alibi else rows


def _of_rows(x: Tensor, rows: Rows) -> Tensor:
    """What each query head has, `[heads]`, for every row: `[rows, group]`."""
    return x.view(-1, rows.q.group).repeat(rows.q.rows * rows.q.group // len(x), 1)


def _room(q: Tensor) -> int:
    """Enough for the probabilities of any documents, however padded: most of it may never be touched."""
    batch, sequence, heads, _ = q.shape
    return batch * sequence * heads * max(SHORT * SHORT, int((sequence + BLOCK) / (2 * WASTE)) + 1)
