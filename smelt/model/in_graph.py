"""Attention over short whole rows in plain operations: a compiler fuses what the CPU engine's operator hides."""

import torch
from torch import Tensor

BLOCK = 64  # queries


def attention_in_graph(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention of rows that are one document each; shapes as for an engine.

    Every block of queries meets the keys up to its end and no others. Scores are rounded to the dtype of `q`, their
    softmax is taken in float32 at least.
    """
    sequence, kv_heads, wide = q.shape[1], k.shape[2], torch.promote_types(q.dtype, torch.float32)
    q = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)  # [rows, group, seq, key_dim]
    k, v = (x.transpose(1, 2).flatten(0, 1) for x in (k, v))  # [rows, seq, channels]
    index, outs = torch.arange(sequence, device=q.device), []
    for first in range(0, sequence, BLOCK):
        end = min(first + BLOCK, sequence)
        scores = q[:, :, first:end].flatten(1, 2) @ k[:, :end].transpose(1, 2)
        heads = scores.unflatten(1, (-1, end - first)).to(wide) * scale  # [rows, group, queries, keys]
        heads = heads.masked_fill(index[:end] > index[first:end, None], -torch.inf)
        probabilities = heads.softmax(-1).to(v.dtype).flatten(1, 2)
        outs.append((probabilities @ v[:, :end]).unflatten(1, (-1, end - first)))
    out = torch.cat(outs, 2).unflatten(0, (-1, kv_heads))  # [batch, kv_heads, group, seq, value_dim]
    return out.permute(0, 3, 1, 2, 4).flatten(2, 3)
