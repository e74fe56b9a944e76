"""Rows cut into chunks, for layers that remember by a state: within a chunk tokens read each other by matrix products,
from chunk to chunk they are remembered by the state alone, so the cost of a token does not grow with its row.

A state fades by a factor exp(decay) at each token, decay <= 0. Decays add up as logarithms in float32, and only
differences that are <= 0 are ever exponentiated: the strongest decay gives 0, never an overflow. Documents start
anywhere; a token reads nothing from before its own.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from smelt.model.context import Context

FADED = -30.0  # a decay below this counts as this: e^-30 is far below float32's resolution, and sums stay exact


class Fading(NamedTuple):
    """What is left of something after the decays between two tokens; 0 where a document starts in between."""

    within: Tensor  # [batch, chunks, heads, reader, writer]: of what a token wrote, when a later one of the chunk reads
    into: Tensor  # [batch, chunks, heads, chunk]: of the state before the chunk, when a token reads
    onward: Tensor  # [batch, chunks, heads, chunk]: of what a token wrote, at the end of the chunk
    across: Tensor  # [batch, chunks, heads]: of the state before the chunk, at its end


class Chunks:
    """The new tokens of `context` in chunks of `size`; the last is filled up with tokens that write nothing."""

    def __init__(self, context: Context, size: int) -> None:
        self.size, self.tokens = size, context.new
        self.count = -(-context.new // size)
        self.padding = self.count * size - context.new
        self.place = torch.arange(self.count * size, device=context.device).view(1, self.count, size)
        self.visible = torch.ones(size, size, dtype=torch.bool, device=context.device).tril()[None, None]
        self.begins: Tensor | None = None
        self.reads = self.writes = self.passes = None
        if context.starts is not None:
            begins = context.starts - context.cached  # negative: the document began among the cached tokens
            begins = torch.cat((begins, begins[:, -1:].expand(-1, self.padding)), 1).unflatten(1, (-1, size))
            self.begins = begins  # [batch, chunks, chunk]
            same = self.place[..., None, :] >= begins[..., None]  # the writer is not before the reader's document
            self.visible = self.visible & same  # [batch, chunks, reader, writer]
            self.reads = begins < self.place[..., :1]  # the state before the chunk, [batch, chunks, chunk]
            self.writes = begins[..., -1:] <= self.place  # into the state after the chunk
            self.passes = self.reads[..., -1]  # the whole state crosses the chunk, [batch, chunks]

    def split(self, x: Tensor) -> Tensor:
        """`[batch, seq, heads, ...]` -> `[batch, chunks, heads, chunk, ...]`."""
        if self.padding:
            x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, self.padding))
        return x.unflatten(1, (self.count, self.size)).transpose(2, 3)

    def join(self, x: Tensor) -> Tensor:
        """The way back from `split`."""
        return x.transpose(2, 3).flatten(1, 2)[:, : self.tokens]

    def fading(self, decay: Tensor) -> Fading:
        """`decay`, float32 `[batch, seq, heads]`: the logarithm of the factor each token multiplies the state by."""
        total = self.sums(decay[..., None].clamp(min=FADED))[..., 0]
        within: Tensor = _Within.apply(total, ~self.visible[:, :, None])
        reads, writes, passes = (None if x is None else x[:, :, None] for x in (self.reads, self.writes, self.passes))
        last = total[..., -1:]
        return Fading(
            within, masked_exp(total, reads), masked_exp(last - total, writes), masked_exp(last[..., 0], passes)
        )

    def sums(self, x: Tensor) -> Tensor:
        """`[batch, seq, heads, channels]` summed over the tokens of the chunk and document up to each:
        `[batch, chunks, heads, chunk, channels]`. As documents are summed apart, one cannot move another's last bit."""
        x = self.split(x)
        if self.begins is None:
            return x.cumsum(3)
        columns = x.transpose(2, 3).flatten(3)  # [batch, chunks, chunk, heads * channels]
        return (self.visible.to(x.dtype) @ columns).unflatten(-1, (x.shape[2], -1)).transpose(2, 3)


class _Within(torch.autograd.Function):
    """`Fading.within` from the summed decays, `[..., chunk]`, and what is `hidden`, `[..., chunk, chunk]`: one square
    array forward and one backward, where autograd would write eight."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, hidden: Tensor) -> Tensor:
        within = (total[..., :, None] - total[..., None, :]).masked_fill_(hidden, -torch.inf).exp_()
        ctx.save_for_backward(within)
        return within

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad * ctx.saved_tensors[0]
        return grad.sum(-1) - grad.sum(-2), None


def masked_exp(logarithm: Tensor, allowed: Tensor | None) -> Tensor:
    """exp(`logarithm`), 0 where not `allowed`: there the logarithm may be anything."""
    return (logarithm if allowed is None else logarithm.masked_fill(~allowed, -torch.inf)).exp()


def chunks(context: Context, most: int) -> Chunks:
    """Equal chunks of at most `most` tokens, made once a batch."""
    size = -(-context.new // -(-context.new // most))
    return context.once(("chunks", size), lambda: Chunks(context, size))


def carry(added: Tensor, across: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The states before each chunk, `[batch, chunks, ...]`, and the one after the last, `[batch, ...]`.

    `added` `[batch, chunks, ...]` is what a chunk's tokens leave at its end, `across` (broadcast against it) the factor
    on the state before it, `state` what the cached tokens left.
    """
    now = torch.zeros_like(added[:, 0]) if state is None else state
    before = []
    for new, factor in zip(added.unbind(1), across.unbind(1), strict=True):
        before.append(now)
        now = torch.addcmul(new, now, factor)
    return torch.stack(before, 1), now


def kept(decay: Tensor, context: Context) -> Tensor:
    """The factors exp(`decay`), `[batch, 1, ...]`, of a single new token; 0 where it begins a document."""
    factor = decay.exp()
    if context.starts is not None:
        alive = context.position > 0
        factor = factor * alive.view(alive.shape + (1,) * (factor.ndim - 2))
    return factor
