"""Linear attention with a complex factor a key channel (GateLoop): S_t = (a_t e^(i p_t)) * S_{t-1} + k_t v_t^T.

o_t = Re(q_t S_t). q, k, the logarithms of a and the phases p are float32 `[batch, seq, heads, key_dim]`, v
`[batch, seq, heads, value_dim]`. The state is float32 `[batch, heads, 2 * key_dim, value_dim]`: its real part, then its
imaginary part. Each form returns o `[batch, seq, heads, value_dim]` and the state after the last token.
"""

import torch
from torch import Tensor

from smelt.model import channels
from smelt.model.chunks import kept
from smelt.model.context import Context


def chunked(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, phase: Tensor, state: Tensor | None, context: Context, most: int
) -> tuple[Tensor, Tensor]:
    """For many tokens: queries and keys turned by the phases since the chunk began, as rotary positions are, leave real
    factors; the state turns from chunk to chunk."""
    cut = channels.halving(context, most)
    turned = cut.sums(phase)  # [batch, chunks, heads, chunk, key_dim]
    cosine, sine = turned.cos(), turned.sin()
    q, k = (torch.cat((x * cosine, x * sine), -1) for x in (cut.split(q), cut.split(k)))
    v, keys = cut.split(v), channels.Side(torch.cat((a, a), -1), cut)
    added, across = _mirrored((k * keys.onward()).mT @ v, 3), keys.across().mT
    cosine, sine = cosine[:, :, :, -1, :, None], sine[:, :, :, -1, :, None]
    now, before = torch.zeros_like(added[:, 0]) if state is None else state, []
    for new, factor, *turn in zip(*(x.unbind(1) for x in (added, across, cosine, sine)), strict=True):
        before.append(now)
        now = _turn(torch.addcmul(new, now, factor), *turn)
    read = (q * keys.into()) @ _mirrored(torch.stack(before, 1), 3)
    return cut.join(channels.within(q, k, v, keys, None, cut) + read), now


def step(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, phase: Tensor, state: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """For one token: the recurrence itself."""
    factor = kept(a, context)
    turned = _turn(state, phase[:, 0, :, :, None].cos(), phase[:, 0, :, :, None].sin())
    real, imaginary = (turned * torch.cat((factor, factor), -1)[:, 0, :, :, None]).chunk(2, 2)
    real = real + k[:, 0, :, :, None] * v[:, 0, :, None]
    return (q[:, 0, :, None] @ real).transpose(1, 2), torch.cat((real, imaginary), 2)


def _mirrored(state: Tensor, dim: int) -> Tensor:
    """The real part and minus the imaginary part: what products with turned keys and queries make and take."""
    real, imaginary = state.chunk(2, dim)
    return torch.cat((real, -imaginary), dim)


def _turn(state: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    real, imaginary = state.chunk(2, 2)
    return torch.cat((real * cosine - imaginary * sine, real * sine + imaginary * cosine), 2)
