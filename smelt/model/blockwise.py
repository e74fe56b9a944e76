"""Attention over rows that are one document each, block by block: the maths of the engine for CPUs.

The softmax is taken in float32 at least. Backward reads the probabilities that forward kept, or computes them again;
then no more than a block of them is ever in memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smelt.model.blocks import Block, Queries, blocks
from smelt.model.scope import Scope
from smelt.model.wide import wide


class Tape:
    """Room for the probabilities of all blocks, one after the other, in the order in which blocks are visited."""

    def __init__(self, flat: Tensor) -> None:
        self.flat, self.place = flat, 0

    def next(self, like: Tensor) -> Tensor:
        """Where the next probabilities are, in the shape of `like`."""
        first, self.place = self.place, self.place + like.numel()
        return self.flat[first : self.place].view(like.shape)


@dataclass(frozen=True)
class Rows:
    """Documents of one length as rows, one for each document and key-value head.

    q has `key_dim` channels, the query heads that read one key-value head being a group; k is `[rows, seq, key_dim]`,
    v `[rows, seq, value_dim]`. `slopes`, `[rows, group]`, are ALiBi's. `scope` has no chunk.
    """

    q: Queries
    k: Tensor
    v: Tensor
    scope: Scope
    slopes: Tensor | None = None

    def forward(self, sinks: Tensor | None, tape: Tape | None) -> tuple[Queries, Queries | None]:
        """softmax(scores) v, with `value_dim` channels; the tape gets the probabilities.

        With `sinks`, logits `[rows, group]`, also what each query gives to its sink, float32, one channel.
        """
        queries = len(self.q.flat)
        out = self.q.new(self.q.flat.new_empty(queries, self.v.shape[-1]))
        share = None if sinks is None else self.q.new(sinks.new_empty(queries, 1))
        exact = self.q.new(wide(self.q.flat)), wide(self.k)
        for block in blocks(self.q, self.scope):
            scores, _ = self._scores(block, *exact)
            probabilities = scores.softmax(-1)
            if sinks is not None and share is not None:
                logits = sinks[block.rows].repeat_interleave(block.size, 1)[..., None]
                given = share.of(block)  # [rows, queries, 1]
                torch.sigmoid(logits - scores.logsumexp(-1, keepdim=True), out=given)
                probabilities.mul_(1 - given)
            probabilities = probabilities.to(self.v.dtype) if tape is None else tape.next(scores).copy_(probabilities)
            torch.bmm(probabilities, block.keys(self.v), out=out.of(block))
        return out, share

    def backward(
        self, grad: Queries, inner: Queries, share: Queries | None, tape: Tape | None
    ) -> tuple[Queries, Tensor, Tensor]:
        """Gradients of q, k, v from that of `out`, and from `inner`, the sum of grad * out over channels."""
        grad_q = self.q.new(torch.empty_like(self.q.flat))
        grad_k, grad_v = wide(torch.zeros_like(self.k)), wide(torch.zeros_like(self.v))
        exact = (self.q.new(wide(self.q.flat)), wide(self.k)) if tape is None else None
        for block in blocks(self.q, self.scope):
            upstream, slope = grad.of(block), None
            grad_scores = upstream @ block.keys(self.v).transpose(1, 2)
            if tape is not None:
                probabilities = tape.next(grad_scores)
            else:
                scores, slope = self._scores(block, *exact)
                probabilities = scores.softmax(-1)
                if share is not None:
                    probabilities.mul_(1 - share.of(block))
                probabilities = probabilities.to(self.v.dtype)
            block.add(grad_v, probabilities.transpose(1, 2) @ upstream)
            grad_scores.sub_(inner.of(block)).mul_(probabilities)
            if slope is not None:
                grad_scores.mul_(slope)
            torch.bmm(grad_scores, block.keys(self.k), out=grad_q.of(block))
            block.add(grad_k, grad_scores.transpose(1, 2) @ self.q.of(block))
        scale = self.scope.scale
        grad_q.flat.mul_(scale)
        return grad_q, grad_k.mul_(scale).to(self.k.dtype), grad_v.to(self.v.dtype)

    def _scores(self, block: Block, q: Queries, k: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weighed and masked scores `[rows, queries, keys]`, and the derivative of the cap at each, if there is one."""
        keys, slope = block.keys(k).transpose(1, 2), None
        scores = torch.baddbmm(k.new_empty(()), q.of(block), keys, beta=0, alpha=self.scope.scale)
        if self.scope.softcap is not None:
            scores.div_(self.scope.softcap).tanh_()
            slope = 1 - scores.square()
            scores.mul_(self.scope.softcap)
        heads = scores.unflatten(1, (-1, block.size))  # [rows, group, queries, keys]
        if self.slopes is not None:
            heads.sub_(self.slopes[block.rows, :, None, None] * block.distances())
        block.hide(heads, self.scope)
        return scores, slope
