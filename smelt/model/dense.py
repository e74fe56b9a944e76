"""Attention with the mask written out, for few queries: decoding over cached keys."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from smelt.model.scope import Scope

if TYPE_CHECKING:
    from smelt.model.context import Context


def dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    context: "Context",
    scope: Scope,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of the new tokens over cached ones and themselves; `sinks` as for an engine.

    `index`, int64 `[seen]` or `[batch, seen]`, is the row position of each key; -1 marks an empty place, which a layer
    without window and chunk has only in the second form.
    """
    mask = visible(index, context, scope)
    if scope.softcap is None and not scope.alibi and sinks is None:
        return scaled_dot_product(q, k, v, scope.scale, mask)
    kv_heads = k.shape[2]
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k = q.unflatten(2, (kv_heads, -1)).to(wide), k.to(wide)
    scores = torch.einsum("bnhgd,bshd->bhgns", q, k).flatten(1, 2) * scope.scale  # [batch, heads, new, seen]
    distance = context.index[:, None] - index[..., None, None, :]  # [batch or 1, 1, new, seen]
    scores = scope.weigh(scores, distance, torch.tensor(scope.alibi, device=q.device)[:, None, None])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.to(wide)[:, None, None].expand(*scores.shape[:3], 1)), -1)
    probabilities = scores.softmax(-1)[..., : k.shape[1]].unflatten(1, (kv_heads, -1)).to(v.dtype)
    return torch.einsum("bhgns,bshd->bnhgd", probabilities, v).flatten(2, 3)


def visible(index: Tensor, context: "Context", scope: Scope) -> Tensor | None:
    """Boolean `[batch or 1, 1, new, seen]`, true where the new token sees the key; None where it sees all."""
    everything = scope.window is None and scope.chunk is None and index.ndim == 1
    if everything and context.new == 1 and context.starts is None:
        return None
    key = index[..., None, None, :]  # [batch or 1, 1, 1, seen]
    begin = 0 if context.starts is None else context.starts[:, None, :, None]  # [batch, 1, new, 1]
    return scope.sees(context.index[:, None], key, begin).view(-1, 1, context.new, index.shape[-1])


def scaled_dot_product(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """PyTorch's attention in our layout; `mask` is boolean, broadcastable to `[batch, heads, new, seen]`."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2)
