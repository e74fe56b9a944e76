"""The documents of a batch as rows: those of like length are padded on the right and attended to together.

A causal query never looks right, so padded keys reach no real token and need no mask.
"""

import functools

import torch
from torch import Tensor

SHORT = 16  # lengths up to this share one group
WASTE = 0.7  # a group's shortest document is at least this share of its longest

Group = tuple[Tensor, Tensor]


class Documents:
    """Where the tokens of a batch `[batch, seq]` go, as rows `[documents * kv_heads, heads / kv_heads, longest, ...]`.

    `groups` are the documents attended to together: first token in the flattened batch, and length, the longest first.
    None: every row is one document.
    """

    def __init__(self, groups: list[Group] | None) -> None:
        self.groups = groups
        self._indices: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def split(self, x: Tensor, kv_heads: int, padding: float | None = None) -> list[Tensor]:
        """`[batch, seq, heads, channels]` -> rows of each group, as copies.

        Padding repeats the last token of its document, or is `padding` everywhere.
        """
        heads, channels = x.shape[2:]
        if self.groups is None:
            rows = x.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)
            return [rows.clone(memory_format=torch.contiguous_format)]
        source, _, unreal = self._index(heads)
        flat = x.reshape(-1, channels).index_select(0, source)
        if padding is not None:
            flat.index_fill_(0, unreal, padding)
        shapes = [(len(begins) * kv_heads, heads // kv_heads, int(lengths[0])) for begins, lengths in self.groups]
        parts = flat.split([rows * group * longest for rows, group, longest in shapes])
        return [part.view(*shape, channels) for part, shape in zip(parts, shapes, strict=True)]

    def join(self, rows: list[Tensor], batch: int, kv_heads: int) -> Tensor:
        """The way back from `split`; contiguous."""
        heads, channels = rows[0].shape[1] * kv_heads, rows[0].shape[-1]
        if self.groups is None:
            return rows[0].unflatten(0, (batch, kv_heads)).permute(0, 3, 1, 2, 4).flatten(2, 3).contiguous()
        flat = torch.cat([x.view(-1, channels) for x in rows])
        return flat.index_select(0, self._index(heads)[1]).view(batch, -1, heads, channels)

    def _index(self, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Over `[batch, seq, heads]` flattened, and the rows of all groups flattened, which are places:

        the source of each place, the place of each source, the places of padding.
        """
        if heads not in self._indices:
            sources, real = [], []
            for begins, lengths in self.groups or []:
                offset = torch.arange(int(lengths[0]))
                token = begins[:, None] + torch.minimum(offset, lengths[:, None] - 1)  # [documents, longest]
                sources.append((token[:, None] * heads + torch.arange(heads)[:, None]).flatten())
                real.append((offset < lengths[:, None])[:, None].expand(-1, heads, -1).flatten())
            source, mask = torch.cat(sources), torch.cat(real)
            places = mask.nonzero().flatten()
            place = torch.empty_like(places)
            place[source[places]] = places
            self._indices[heads] = source, place, (~mask).nonzero().flatten()
        return self._indices[heads]


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
