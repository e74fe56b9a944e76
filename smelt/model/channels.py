"""Linear attention whose state fades by a factor a channel: S_t = (a_t b_t^T) * S_{t-1} + k_t v_t^T, o_t = q_t S_t.

q, k and the logarithms of a are float32 `[batch, seq, heads, key_dim]`; v and the logarithms of b (None: b = 1)
`[batch, seq, heads, value_dim]`. The state is float32 `[batch, heads, key_dim, value_dim]`. Each form returns o
`[batch, seq, heads, value_dim]` and the state after the last token.
"""

import torch
from torch import Tensor

from smelt.model.chunks import FADED, Chunks, carry, kept, masked_exp
from smelt.model.context import Context


def chunked(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor | None, state: Tensor | None, context: Context, most: int
) -> tuple[Tensor, Tensor]:
    """For many tokens, in chunks of the largest power of two that is at most `most`."""
    cut = halving(context, most)
    q, k, v = cut.split(q), cut.split(k), cut.split(v)  # [batch, chunks, heads, chunk, channels]
    keys = Side(a, cut)
    values = None if b is None else Side(b, cut)
    out = within(q, k, v, keys, values, cut)
    written = v if values is None else v * values.onward()
    added = (k * keys.onward()).mT @ written
    across = keys.across().mT if values is None else keys.across().mT * values.across()
    before, after = carry(added, across, state)
    read = (q * keys.into()) @ before
    return cut.join(out + (read if values is None else read * values.into())), after


def halving(context: Context, most: int) -> Chunks:
    """Chunks of the largest power of two that is at most `most`, or of the least that holds the row."""
    size = min(1 << most.bit_length() - 1, 1 << (context.new - 1).bit_length())
    return context.once(("chunks", size), lambda: Chunks(context, size))


def within(q: Tensor, k: Tensor, v: Tensor, keys: "Side", values: "Side | None", cut: Chunks) -> Tensor:
    """What tokens read of their own chunk, `[batch, chunks, heads, chunk, value_dim]`; q, k, v split into chunks.

    The factor between two tokens is split at a point between them, so that neither part exceeds 1: the second half of a
    chunk reads the first through its middle, the second quarter the first through theirs, and so on down to a token
    and itself.
    """
    out = (q * k).sum(-1, keepdim=True) * v
    half = cut.size // 2
    while half:
        later, earlier = _half(q, half, 1) * keys.since(half), _half(k, half, 0) * keys.until(half)
        first = _half(v, half, 0)
        if values is not None:
            first = first * values.until(half)
        read = (later @ earlier.mT) @ first  # [batch, chunks, heads, pairs of blocks, half, value_dim]
        if values is not None:
            read = read * values.since(half)
        out = out + torch.stack((torch.zeros_like(read), read), 4).flatten(3, 5)
        half //= 2
    return out


class Side:
    """The fading of the key or of the value channels."""

    def __init__(self, decay: Tensor, cut: Chunks) -> None:
        self.cut = cut
        self.total = cut.sums(decay.clamp(min=FADED))  # [batch, chunks, heads, chunk, channels]
        self.last = self.total[:, :, :, -1:]

    def into(self) -> Tensor:
        """Of the state before the chunk, when a token reads: the shape of `total`."""
        return masked_exp(self.total, _wide(self.cut.reads))

    def onward(self) -> Tensor:
        """Of what a token wrote, at the end of the chunk: the shape of `total`."""
        return masked_exp(self.last - self.total, _wide(self.cut.writes))

    def across(self) -> Tensor:
        """Of the state before the chunk, at its end: `[batch, chunks, heads, 1, channels]`."""
        return masked_exp(self.last, None if self.cut.passes is None else _wide(self.cut.passes[..., None]))

    def since(self, half: int) -> Tensor:
        """From the end of the first block of `half` tokens of each pair to each token of the second."""
        later, middle = _half(self.total, half, 1), _half(self.total, half, 0)[..., -1:, :]
        if self.cut.begins is None:
            return (later - middle).exp()
        crosses = _half(_wide(self.cut.begins), half, 1) < _half(_wide(self.cut.place), half, 1)[..., :1, :]
        return masked_exp(later - middle, crosses)

    def until(self, half: int) -> Tensor:
        """From each token of the first block to its end."""
        first = _half(self.total, half, 0)
        if self.cut.begins is None:
            return (first[..., -1:, :] - first).exp()
        reaches = _half(_wide(self.cut.begins), half, 0)[..., -1:, :] <= _half(_wide(self.cut.place), half, 0)
        return masked_exp(first[..., -1:, :] - first, reaches)


def _wide(x: Tensor | None) -> Tensor | None:
    """`[batch, chunks, chunk]` with axes for heads and channels: `[batch, chunks, 1, chunk, 1]`."""
    return None if x is None else x[:, :, None, :, None]


def _half(x: Tensor, half: int, which: int) -> Tensor:
    """The first or second block of `half` tokens of each pair: `[batch, chunks, heads, pairs, half, channels]`."""
    return x.unflatten(3, (-1, 2, half))[:, :, :, :, which]


def step(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor | None, state: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """For one token: the recurrence itself."""
    state = state * kept(a, context)[:, 0, :, :, None]
    if b is not None:
        state = state * b.exp()[:, 0, :, None]
    state = state + k[:, 0, :, :, None] * v[:, 0, :, None]
    return (q[:, 0, :, None] @ state).transpose(1, 2), state
