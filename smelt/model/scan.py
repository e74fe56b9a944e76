"""Linear attention with one decay a head: S_t = exp(decay_t) S_{t-1} + k_t v_t^T, o_t = q_t S_t.

q and k are float32 `[batch, seq, groups, key_dim]`, v `[batch, seq, heads, value_dim]`, decay `[batch, seq, heads]`;
a group of heads shares its q and k (Mamba-2's C and B). The state is float32 `[batch, heads, key_dim, value_dim]`.
Each form returns o `[batch, seq, heads, value_dim]` and the state after the last token.
"""

from torch import Tensor

from smelt.model.chunks import carry, chunks, kept
from smelt.model.context import Context


def chunked(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None, context: Context, most: int
) -> tuple[Tensor, Tensor]:
    """For many tokens: the chunked form of Mamba-2 (Dao & Gu 2024, section 6), chunks of at most `most` tokens."""
    cut = chunks(context, most)
    fading = cut.fading(decay)
    q, k, v = cut.split(q), cut.split(k), cut.split(v)
    scores = q @ k.mT  # [batch, chunks, groups, chunk, chunk]
    heads = v.shape[2] // q.shape[2]  # of a group
    inner = (fading.within.unflatten(2, (-1, heads)) * scores[:, :, :, None]).flatten(2, 3) @ v
    added = each(k.mT, heads) @ (v * fading.onward[..., None])
    before, after = carry(added, fading.across[..., None, None], state)
    outer = (each(q, heads) @ before) * fading.into[..., None]
    return cut.join(inner + outer), after


def step(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """For one token: the recurrence itself."""
    heads = v.shape[2] // q.shape[2]
    q, k = (each(x.transpose(1, 2)[:, None], heads)[:, 0] for x in (q, k))  # [batch, heads, 1, key_dim]
    state = state * kept(decay, context)[:, 0, :, None, None] + k.mT * v.transpose(1, 2)
    return (q @ state).transpose(1, 2), state


def each(x: Tensor, heads: int) -> Tensor:
    """`[batch, chunks, groups, ...]` repeated for the `heads` of each group: `[batch, chunks, groups * heads, ...]`."""
    if heads == 1:
        return x
    return x[:, :, :, None].expand(-1, -1, -1, heads, *x.shape[3:]).flatten(2, 3)
