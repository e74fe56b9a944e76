"""The attention engine for GPUs: FlexAttention over the blocks that a scope touches, found with no dense mask."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from smelt.model.dense import scaled_dot_product
from smelt.model.scope import Scope

BLOCK = 128


class Flex:
    """The engine of a layer, with the block mask of a batch; `starts` as in `smelt.model.masks`."""

    def __init__(self, starts: Tensor | None, scope: Scope) -> None:
        self.starts, self.scope = starts, scope
        self.blocks: BlockMask | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None) -> Tensor:
        if self.starts is None and self.scope.plain and sinks is None:
            return scaled_dot_product(q, k, v, self.scope.scale, is_causal=True)
        if self.blocks is None:
            self.blocks = block_mask(self.starts, self.scope, q.shape[1], q.device)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out, aux = _kernel(q.device)(
            q,
            k,
            v,
            score_mod=_score_mod(self.scope, q.device),
            block_mask=self.blocks,
            scale=self.scope.scale,
            enable_gqa=q.shape[1] != k.shape[1],
            return_aux=AuxRequest(lse=sinks is not None),
        )
        if sinks is not None:
            out = out * (aux.lse - sinks[:, None]).sigmoid()[..., None].to(out.dtype)  # lse: [batch, heads, seq]
        return out.transpose(1, 2)


def block_mask(starts: Tensor | None, scope: Scope, sequence: int, device: torch.device) -> BlockMask:
    """The blocks to visit, from each block's first and last document start; for every row the same without `starts`."""
    count = -(-sequence // BLOCK)
    begins = torch.zeros(1, sequence, dtype=torch.int32, device=device) if starts is None else starts
    if scope.chunk is not None:
        begins = begins + (torch.arange(sequence, device=device) - begins) // scope.chunk * scope.chunk
    padded = torch.cat((begins, begins[:, -1:].expand(-1, -sequence % BLOCK)), 1).unflatten(1, (count, BLOCK))
    earliest, latest = padded.amin(-1)[:, :, None], padded.amax(-1)[:, :, None]  # [batch, query blocks, 1]
    block = torch.arange(count, device=device)
    query, key, first, end = block[:, None], block, block * BLOCK, (block + 1) * BLOCK
    touched = (key <= query) & (end > earliest)  # [batch, query blocks, key blocks]
    full = (key < query) & (first >= latest)
    if scope.window is not None:
        last = (first[:, None] + BLOCK).clamp(max=sequence) - 1  # query of each block
        # Only the earliest document can begin before the block; its first tokens are seen whatever the window.
        touched = touched & ((end > first[:, None] - scope.window + 1) | (first < earliest + scope.sink_tokens))
        full = full & ((first > last - scope.window) | (end <= latest + scope.sink_tokens))

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return scope.sees(query, key, 0 if starts is None else starts[batch, query])

    return BlockMask.from_kv_blocks(
        *_ordered(touched & ~full),
        *_ordered(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(sequence, sequence),
    )


def _score_mod(scope: Scope, device: torch.device) -> Callable[..., Tensor] | None:
    if scope.softcap is None and not scope.alibi:
        return None
    slope = torch.tensor(scope.alibi, device=device)

    def weighed(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return scope.weigh(score, query - key, slope[head] if scope.alibi else slope)

    return weighed


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block visits, and which, chosen ones first; both with an axis for all heads."""
    counts = blocks.sum(-1, dtype=torch.int32)
    indices = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return counts[:, None], indices[:, None]


def _kernel(device: torch.device) -> Callable[..., Any]:
    """Compiled where that makes a kernel; inside a compiled model it is traced with the rest."""
    return flex_attention if device.type == "cpu" or torch.compiler.is_compiling() else _compiled()


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)
