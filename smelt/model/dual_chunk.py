"""Dual chunk attention (An et al. 2024): a model reads far beyond its trained length, and sees no longer distance.

Keys stand at their place in their chunk of `chunk` tokens, once and for all. A query has three places: `own` for keys
of its chunk, `previous` for those of the chunk before, where its first `local` tokens see exact distances, and `far`,
the greatest, for all earlier ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from smelt.model.cache import KeyValues
from smelt.model.context import Context
from smelt.model.masks import Scope
from smelt.model.positions import Rotary, Rotation, rotate, rotation
from smelt.recipe.parts.position import DualChunk

BLOCK = 128  # queries


class Places(NamedTuple):
    """Positions at which queries are rotated, each int64 `[batch or 1, seq]`; `own` is the keys' too."""

    own: Tensor
    previous: Tensor
    far: Tensor


def places(position: Tensor, scaling: DualChunk) -> Places:
    """The three places of queries at `position`, int64 `[batch or 1, seq]`, in their documents."""
    own = position % scaling.chunk
    far = torch.full_like(own, scaling.greatest)
    return Places(own, torch.where(own < scaling.local, own + scaling.chunk, far), far)


def dual_chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Context,
    cache: KeyValues | None,
    rotary: Rotary,
    scope: Scope,
    sinks: Tensor | None,
) -> Tensor:
    """Attention with queries and keys not yet rotated; shapes as in `smelt.model.masks`. For inference.

    Scores exist for a block of queries at a time, and each product only over the keys that can need it.
    """
    part, channels = rotary.part, rotary.channels
    turns: list[Rotation] = context.once(
        rotary.name, lambda: [rotation(place, part, channels) for place in places(context.position, part.scaling)]
    )
    k = rotate(k, turns[0])
    if cache is not None:
        k, v, _ = cache.append(k, v, context)
    queries = [rotate(q, turn).unflatten(2, (k.shape[2], -1)) for turn in turns]  # [batch, new, kv_heads, group, dim]
    blocks = []
    for first in range(0, context.new, BLOCK):
        rows = slice(first, min(first + BLOCK, context.new))
        end = context.cached + rows.stop
        probabilities = _weights(
            [x[:, rows] for x in queries], k[:, :end], context, rows, part.scaling.chunk, scope, sinks
        )
        blocks.append(torch.einsum("bkgqs,bskd->bqkgd", probabilities.to(v.dtype), v[:, :end]))
    return torch.cat(blocks, 1).flatten(2, 3)


def _weights(
    queries: list[Tensor], k: Tensor, context: Context, rows: slice, chunk: int, scope: Scope, sinks: Tensor | None
) -> Tensor:
    """Float32 `[batch, kv_heads, group, queries, keys]` for the queries `rows`, whose last one is the last key."""
    own, previous, far = (query * scope.scale for query in queries)
    begin, end = context.cached + rows.start, k.shape[1]
    index, position = torch.arange(end, device=k.device), context.position[:, rows, None]
    start = context.index[rows, None] - position  # [batch or 1, queries, 1]
    apart = position // chunk - (index - start).div(chunk, rounding_mode="floor")  # chunks between query and key
    needs = [(own, 0, max(0, begin - chunk + 1), end)]  # places, chunks apart, the keys that can be so far apart
    if end > chunk:
        needs += [(previous, 1, max(0, begin - 2 * chunk + 1), end), (far, 2, 0, end - chunk)]
    scores = own.new_zeros(own.shape[0], *own.shape[2:4], rows.stop - rows.start, end, dtype=torch.float32)
    for query, chunks, first, last in reversed(needs):
        product = torch.einsum("bqkgd,bskd->bkgqs", query, k[:, first:last]).float()
        here = apart[..., first:last].clamp(max=2)[:, None, None] == chunks
        scores[..., first:last] = torch.where(here, product, scores[..., first:last])
    if scope.softcap is not None:
        scores = (scores / scope.softcap).tanh() * scope.softcap
    hidden = (index > context.index[rows, None]) | (index < start)
    scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
    if sinks is None:
        return scores.softmax(-1)
    extra = sinks.float().view(*own.shape[2:4], 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat((scores, extra), -1).softmax(-1)[..., :-1]
