"""The documents of a batch as rows: those of like length are padded on the right and attended to together.

A causal query never looks right, so padded keys reach no real token and need no mask.
"""

import functools

import torch
from torch import Tensor

from smelt.model.blocks import Queries, block_size

SHORT = 16  # lengths up to this share one group
WASTE = 0.7  # a group's shortest document is at least this share of its longest

Group = tuple[Tensor, Tensor]


class Documents:
    """Where the tokens of a batch `[batch, seq]` go, as rows, one for each document and key-value head.

    `groups` are the documents attended to together: first token in the flattened batch, and length, the longest first.
    None: every row is one document.
    """

    def __init__(self, groups: list[Group] | None) -> None:
        self.groups = groups
        self._indices: dict[tuple[int, int, bool], tuple[Tensor, Tensor, Tensor]] = {}

    def keys(self, x: Tensor) -> list[Tensor]:
        """`[batch, seq, kv_heads, channels]` -> `[rows, seq, channels]` of each group; copies. Padding repeats the
        last token of its document."""
        if self.groups is None:
            return [x.transpose(1, 2).flatten(0, 1).contiguous()]
        heads, channels = x.shape[2:]
        flat = x.reshape(-1, channels).index_select(0, self._index(heads, 1, False)[0])
        return [part.view(-1, longest, channels) for part, longest in self._parts(flat, heads)]

    def queries(self, x: Tensor, kv_heads: int, padding: float | None = None) -> list[Queries]:
        """`[batch, seq, heads, channels]` -> each group's; copies. Padding repeats the last token of its document,
        or is `padding` everywhere."""
        heads, channels = x.shape[2:]
        group = heads // kv_heads
        if self.groups is None:
            return [Queries(_cut(x.unflatten(2, (kv_heads, group))), len(x) * kv_heads, group)]
        source, _, unreal = self._index(kv_heads, group, True)
        flat = x.reshape(-1, channels).index_select(0, source)
        if padding is not None:
            flat.index_fill_(0, unreal, padding)
        return [Queries(part, len(part) // (longest * group), group) for part, longest in self._parts(flat, heads)]

    def join(self, parts: list[Queries], batch: int, kv_heads: int) -> Tensor:
        """The way back from `queries`; contiguous."""
        group = parts[0].group
        if self.groups is None:
            return _uncut(parts[0].flat, batch, kv_heads, group)
        flat = torch.cat([part.flat for part in parts])
        return self._join(flat, self._index(kv_heads, group, True)[1], batch, kv_heads * group)

    def join_keys(self, parts: list[Tensor], batch: int, kv_heads: int) -> Tensor:
        """The way back from `keys`; contiguous."""
        if self.groups is None:
            return parts[0].unflatten(0, (batch, kv_heads)).transpose(1, 2).contiguous()
        flat = torch.cat([part.flatten(0, 1) for part in parts])
        return self._join(flat, self._index(kv_heads, 1, False)[1], batch, kv_heads)

    def _join(self, flat: Tensor, place: Tensor, batch: int, heads: int) -> Tensor:
        return flat.index_select(0, place).view(batch, -1, heads, flat.shape[1])

    def _parts(self, flat: Tensor, heads: int) -> list[tuple[Tensor, int]]:
        """What belongs to each group, and how long its rows are."""
        longest = [int(lengths[0]) for _, lengths in self.groups or []]
        sizes = [len(begins) * heads * long for (begins, _), long in zip(self.groups or [], longest, strict=True)]
        return list(zip(flat.split(sizes), longest, strict=True))

    def _index(self, kv_heads: int, group: int, cut: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Over `[batch, seq, heads]` flattened, and the rows of all groups flattened (`cut`: block by block), which are
        places: the source of each place, the place of each source, the places of padding."""
        key = kv_heads, group, cut
        if key not in self._indices:
            sources, real = [], []
            for begins, lengths in self.groups or []:
                longest = int(lengths[0])
                offset, head = torch.arange(longest), torch.arange(kv_heads * group).view(kv_heads, group, 1)
                token = begins[:, None] + torch.minimum(offset, lengths[:, None] - 1)  # [documents, longest]
                source = token[:, None, None] * head.numel() + head  # [documents, kv_heads, group, longest]
                mask = (offset < lengths[:, None])[:, None, None].expand_as(source)
                size = block_size(group) if cut else longest
                for first in range(0, longest, size):
                    sources.append(source[..., first : first + size].flatten())
                    real.append(mask[..., first : first + size].flatten())
            source, mask = torch.cat(sources), torch.cat(real)
            places = mask.nonzero().flatten()
            place = torch.empty_like(places)
            place[source[places]] = places
            self._indices[key] = source, place, (~mask).nonzero().flatten()
        return self._indices[key]


def _cut(x: Tensor) -> Tensor:
    """`[batch, seq, kv_heads, group, channels]` -> the same block by block, flat."""
    size, channels = block_size(x.shape[3]), x.shape[4]
    whole = x.shape[1] // size * size
    blocks = x[:, :whole].unflatten(1, (whole // size, size)).permute(1, 0, 3, 4, 2, 5).reshape(-1, channels)
    if whole == x.shape[1]:
        return blocks
    return torch.cat((blocks, x[:, whole:].permute(0, 2, 3, 1, 4).reshape(-1, channels)))


def _uncut(flat: Tensor, batch: int, kv_heads: int, group: int) -> Tensor:
    """The way back from `_cut`, to `[batch, seq, heads, channels]`, contiguous."""
    size, sequence = block_size(group), len(flat) // (batch * kv_heads * group)
    whole = sequence // size * size
    cut = flat.tensor_split([whole * batch * kv_heads * group])
    blocks = cut[0].view(whole // size, batch, kv_heads, group, size, flat.shape[1]).permute(1, 0, 4, 2, 3, 5)
    out = blocks.reshape(batch, whole, kv_heads * group, flat.shape[1])
    if whole == sequence:
        return out
    rest = cut[1].view(batch, kv_heads, group, sequence - whole, -1).permute(0, 3, 1, 2, 4)
    return torch.cat((out, rest.reshape(batch, sequence - whole, kv_heads * group, -1)), 1)


WHOLE = Documents(None)


def documents(starts: Tensor | None) -> Documents:
    """The documents of a batch; `starts`, int32 `[batch, seq]`, is where each token's document begins (None: 0).

    The layers of a batch, forward and backward, find the same object, as long as `starts` holds the same numbers.
    """
    if starts is None:
        return WHOLE
    numbers = starts.detach().to(torch.int32).contiguous()
    return _documents(numbers.numpy().tobytes(), tuple(numbers.shape))


@functools.lru_cache(maxsize=8)
def _documents(numbers: bytes, shape: tuple[int, int]) -> Documents:
    starts = torch.frombuffer(bytearray(numbers), dtype=torch.int32).view(shape)
    begins = (starts == torch.arange(shape[1])).flatten().nonzero().flatten()
    if len(begins) == shape[0]:
        return WHOLE
    lengths = torch.diff(begins, append=begins.new_tensor([starts.numel()]))
    order = torch.argsort(lengths, descending=True, stable=True)
    return Documents([(begins[order[group]], lengths[order[group]]) for group in _grouped(lengths[order].tolist())])


def _grouped(lengths: list[int]) -> list[slice]:
    """Documents attended to together, as parts of `lengths`, which falls."""
    firsts = [0]
    for document, length in enumerate(lengths):
        longest = lengths[firsts[-1]]
        if length < WASTE * longest and longest > SHORT:
            firsts.append(document)
    return [slice(*ends) for ends in zip(firsts, [*firsts[1:], len(lengths)], strict=True)]
