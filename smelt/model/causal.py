"""Causal attention over rows that are one document each: q `[batch, seq, heads, head_dim]`, k and v with kv_heads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from smelt.model.blockwise import LONGEST, Blockwise


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Token i sees tokens 0 to i of its row; returns the shape of `q`."""
    if q.device.type == "cpu" and q.dtype == torch.float32 and q.shape[1] <= LONGEST:
        out: Tensor = Blockwise.apply(q, k, v)
        return out
    return scaled_dot_product(q, k, v, is_causal=True)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """PyTorch's attention in our layout; `mask` is boolean, broadcastable to `[batch, heads, new, seen]`."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped)
    return out.transpose(1, 2)
