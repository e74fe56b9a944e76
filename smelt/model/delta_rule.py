"""The gated delta rule (Yang et al. 2024): S_t = exp(decay_t) (S_{t-1} - b_t k_t (k_t^T S_{t-1})) + b_t k_t v_t^T.

o_t = q_t S_t. q and k are float32 `[batch, seq, key_heads, key_dim]`, shared by equal groups of heads; v
`[batch, seq, heads, value_dim]`, decay and b `[batch, seq, heads]`. The state is float32
`[batch, heads, key_dim, value_dim]`. Each form returns o `[batch, seq, heads, value_dim]` and the state after the last
token.
"""

import torch
from torch import Tensor

from smelt.model.chunks import chunks, kept
from smelt.model.context import Context
from smelt.model.scan import each


def chunked(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, b: Tensor, state: Tensor | None, context: Context, most: int
) -> tuple[Tensor, Tensor]:
    """For many tokens, in chunks of at most `most`.

    What token i of a chunk writes at its key, u_i = b_i (v_i - what the state holds there), depends on the u of earlier
    tokens through a unit triangular system (Yang et al. 2024, section 3.3). It is solved for v and for the keys at
    once, before any state is known; the state before the chunk then enters by one product.
    """
    cut = chunks(context, most)
    fading = cut.fading(decay)
    q, k, v, b = cut.split(q), cut.split(k), cut.split(v), cut.split(b)[..., None]
    heads = v.shape[2] // q.shape[2]  # of a key head
    within = fading.within.unflatten(2, (-1, heads))
    overlap = (within * (k @ k.mT)[:, :, :, None]).flatten(2, 3) * b  # its upper half is not read
    scores = (within * (q @ k.mT)[:, :, :, None]).flatten(2, 3)
    q, k = each(q, heads), each(k, heads)
    into = fading.into[..., None]
    right = torch.cat((v * b, k * (b * into)), -1)
    own, keys = torch.linalg.solve_triangular(overlap, right, upper=False, unitriangular=True).split(
        (v.shape[-1], k.shape[-1]), -1
    )
    onward, across = (k * fading.onward[..., None]).mT, fading.across[..., None, None]
    now = own.new_zeros(own.shape[0], own.shape[2], k.shape[-1], v.shape[-1]) if state is None else state
    before, written = [], []
    for values, read, writer, factor in zip(*(x.unbind(1) for x in (own, keys, onward, across)), strict=True):
        before.append(now)
        written.append(values - read @ now)
        now = torch.addcmul(writer @ written[-1], now, factor)
    out = scores @ torch.stack(written, 1) + (q * into) @ torch.stack(before, 1)
    return cut.join(out), now


def step(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, b: Tensor, state: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """For one token: the recurrence itself."""
    heads = v.shape[2] // q.shape[2]
    q, k = (each(x.transpose(1, 2)[:, None], heads)[:, 0] for x in (q, k))  # [batch, heads, 1, key_dim]
    state = state * kept(decay, context)[:, 0, :, None, None]
    written = b.transpose(1, 2)[..., None] * (v.transpose(1, 2) - k @ state)
    state = state + k.mT * written
    return (q @ state).transpose(1, 2), state
