"""Attention within documents without any mask, for CPUs: documents of like length are attended to together.

A document is padded on the right to the longest of its group. A causal query never looks right, so padded keys reach
no real token, and no mask is needed.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smelt.model.causal import causal

SHORT = 16  # lengths up to this share one group
WASTE = 0.7  # a group's shortest document is at least this share of its longest


class PerDocument:
    """The documents of a batch, grouped by length; built once, then called by every layer."""

    def __init__(self, starts: Tensor) -> None:
        self.groups: list[tuple[int, int]] = []
        begins, lengths = _documents(starts)
        sources, real = [], []
        for group in _grouped(lengths.tolist()):
            longest = int(lengths[group[0]])
            offset = torch.arange(longest, device=starts.device)
            inside = offset < lengths[group, None]  # [documents, longest]
            sources.append(torch.where(inside, begins[group, None] + offset, 0).flatten())
            real.append(inside.flatten())
            self.groups.append((len(group), longest))
        self.source = torch.cat(sources)  # [places]: the token at each place
        self.padding = (~torch.cat(real)).nonzero().flatten()  # places that hold no token
        places = torch.cat(real).nonzero().flatten()
        self.place = torch.empty_like(places)  # [tokens]: the place of each token
        self.place[self.source[places]] = places

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(*(self._split(x) for x in (q, k, v)), strict=True)
        places = torch.cat([causal(*part).flatten(0, 1) for part in parts])
        out: Tensor = _Join.apply(places, self.place, self.source, self.padding)
        return out.view(q.shape)

    def _split(self, x: Tensor) -> list[Tensor]:
        """`[batch, seq, heads, head_dim]` -> for each group `[documents, longest, heads, head_dim]`."""
        places = _Spread.apply(x.flatten(0, 1), self.source, self.place)
        parts = places.split([count * longest for count, longest in self.groups])
        return [part.unflatten(0, group) for part, group in zip(parts, self.groups, strict=True)]


def _documents(starts: Tensor) -> tuple[Tensor, Tensor]:
    """First token (in the flattened batch) and length of each document, the longest first."""
    index = torch.arange(starts.shape[1], device=starts.device)
    begins = (starts == index).flatten().nonzero().flatten()
    lengths = torch.diff(begins, append=begins.new_tensor([starts.numel()]))
    order = torch.argsort(lengths, descending=True, stable=True)
    return begins[order], lengths[order]


def _grouped(lengths: list[int]) -> list[list[int]]:
    """Documents attended to together, by their place in `lengths`, which falls."""
    groups: list[list[int]] = []
    for document, length in enumerate(lengths):
        longest = lengths[groups[-1][0]] if groups else 0
        if length >= WASTE * longest > 0 or 0 < longest <= SHORT:
            groups[-1].append(document)
        else:
            groups.append([document])
    return groups


class _Spread(torch.autograd.Function):
    """Tokens to places. Backward reads each token's place: what reached the padding is dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, source: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Join(torch.autograd.Function):
    """Places to tokens. Backward gives the padding a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Tensor, source: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(source, padding)
        return x.index_select(0, place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        source, padding = ctx.saved_tensors
        return grad.index_select(0, source).index_fill_(0, padding, 0), None, None, None
