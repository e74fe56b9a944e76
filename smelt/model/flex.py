"""Attention within documents for GPUs: FlexAttention over the blocks that documents touch, found with no dense mask."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128


class Flex:
    """The block mask of a batch; built once, then called by every layer."""

    def __init__(self, starts: Tensor) -> None:
        self.blocks = block_mask(starts)
        self.attention = _compiled() if starts.device.type == "cuda" else flex_attention

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out: Tensor = self.attention(q, k, v, block_mask=self.blocks, enable_gqa=q.shape[1] != k.shape[1])
        return out.transpose(1, 2)


def block_mask(starts: Tensor) -> BlockMask:
    """The blocks to visit for `starts` `[batch, seq]`, straight from each block's first and last document start."""
    sequence = starts.shape[1]
    count = -(-sequence // BLOCK)
    padded = torch.cat((starts, starts[:, -1:].expand(-1, -sequence % BLOCK)), 1).unflatten(1, (count, BLOCK))
    earliest, latest = padded.amin(-1)[:, :, None], padded.amax(-1)[:, :, None]  # [batch, query blocks, 1]
    query, key = torch.arange(count, device=starts.device)[:, None], torch.arange(count, device=starts.device)
    touched = (key <= query) & ((key + 1) * BLOCK > earliest)  # [batch, query blocks, key blocks]
    full = (key < query) & (key * BLOCK >= latest)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= starts[batch, query])

    return BlockMask.from_kv_blocks(
        *_ordered(touched & ~full),
        *_ordered(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(sequence, sequence),
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block visits, and which, chosen ones first; both with an axis for all heads."""
    counts = blocks.sum(-1, dtype=torch.int32)
    indices = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return counts[:, None], indices[:, None]


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)
