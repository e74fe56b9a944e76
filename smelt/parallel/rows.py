"""What ranks that hold parts of the same rows hand each other; gradients find the way back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

PerHead = TypeVar("PerHead", Tensor, tuple[float, ...])


def all_to_all(x: Tensor, received: Sequence[int], sent: Sequence[int], group: str) -> Tensor:
    """The first `sent[0]` entries of `x` go to rank 0, the next to rank 1...; what came, in the order of ranks.

    `group` is the name of a process group: a compiler breaks its graph at the group itself, or at a mesh.
    """
    out = collectives.all_to_all_single(x.contiguous(), list(received), list(sent), group)
    return collectives.wait_tensor(out)


@dataclass(frozen=True)
class Parts:
    """Rows cut into equal parts of neighbouring tokens, one for each rank of the process group of this name."""

    group: str
    ranks: int
    rank: int

    @classmethod
    def over(cls, mesh: DeviceMesh) -> "Parts":
        """As many parts as `mesh`, of one dimension, has ranks."""
        return cls(mesh.get_group().group_name, mesh.size(), mesh.get_local_rank())

    def own(self, x: Tensor) -> Tensor:
        """This rank's tokens of `[batch, seq, ...]`."""
        size = x.shape[1] // self.ranks
        return x[:, self.rank * size : (self.rank + 1) * size]

    def whole(self, x: Tensor) -> Tensor:
        """`[batch, seq / ranks, ...]` of each rank -> all `[batch, seq, ...]` on each."""
        gathered = collectives.all_gather_single(x.contiguous(), 0, self.group)
        parts = collectives.wait_tensor(gathered).unflatten(0, (self.ranks, -1))
        return parts.transpose(0, 1).flatten(1, 2)

    def before(self, x: Tensor, count: int) -> Tensor:
        """Of `[batch, seq / ranks, channels]` the last `count` tokens before this rank's, zeros before the row."""
        batch, size, channels = x.shape
        if size < count:
            whole = F.pad(self.whole(x), (0, 0, count, 0))
            return whole[:, self.rank * size : self.rank * size + count]
        tail = x[:, size - count :]
        sent, received = ([0] * self.ranks for _ in range(2))
        if self.rank + 1 < self.ranks:
            sent[self.rank + 1] = tail.numel()
        if self.rank:
            received[self.rank - 1] = tail.numel()
        came = all_to_all(tail.flatten()[: sum(sent)], received, sent, self.group)
        return came.view(batch, count, channels) if self.rank else F.pad(came, (0, tail.numel())).view_as(tail)

    def heads(self, *tensors: Tensor) -> list[Tensor]:
        """Each `[batch, seq / ranks, heads, ...]` -> `[batch, seq, share of heads, ...]`: all tokens of few heads.

        Where a tensor has fewer heads than another, equal groups of the other's heads share each of its heads.
        """
        most = max(x.shape[2] for x in tensors)
        taken = [shares(most, x.shape[2], self.ranks) for x in tensors]
        parcels = [[_pick(x, of[rank]) for x, of in zip(tensors, taken, strict=True)] for rank in range(self.ranks)]
        sent = [sum(part.numel() for part in parcel) for parcel in parcels]
        flat = torch.cat([part.flatten() for parcel in parcels for part in parcel])
        own = parcels[self.rank]  # what comes from each rank has these shapes
        came = all_to_all(flat, [sent[self.rank]] * self.ranks, sent, self.group).view(self.ranks, -1)
        pieces = came.split([part.numel() for part in own], 1)
        return [
            piece.unflatten(1, part.shape).transpose(0, 1).flatten(1, 2)
            for piece, part in zip(pieces, own, strict=True)
        ]

    def tokens(self, x: Tensor, heads: int) -> Tensor:
        """The way back from `heads`: `[batch, seq, share of heads, ...]` -> `[batch, seq / ranks, heads, ...]`."""
        batch, sequence, _, *channels = x.shape
        size = sequence // self.ranks
        each = batch * size * torch.Size(channels).numel()
        counts = [end - first for first, end in bounds(heads, self.ranks)]
        flat = x.unflatten(1, (self.ranks, size)).transpose(0, 1).flatten()
        came = all_to_all(flat, [each * count for count in counts], [each * counts[self.rank]] * self.ranks, self.group)
        pieces = came.split([each * count for count in counts])
        return torch.cat([p.view(batch, size, n, *channels) for p, n in zip(pieces, counts, strict=True)], 2)

    def share(self, x: PerHead) -> PerHead:
        """Of what every head has this rank's part."""
        return x[slice(*bounds(len(x), self.ranks)[self.rank])]


def bounds(heads: int, ranks: int) -> list[tuple[int, int]]:
    """The heads of each rank: from, and up to."""
    return [(heads * rank // ranks, heads * (rank + 1) // ranks) for rank in range(ranks)]


def shares(heads: int, of: int, ranks: int) -> tuple[tuple[int, ...], ...]:
    """Which of a tensor's `of` heads each rank needs for its share of `heads`: each once where equal groups of the
    share read them, else once for every head of the share."""
    found = []
    for first, end in bounds(heads, ranks):
        read = [head * of // heads for head in range(first, end)]
        once = sorted(set(read))
        found.append(tuple(once if len({read.count(head) for head in once}) <= 1 else read))
    return tuple(found)


def _pick(x: Tensor, heads: tuple[int, ...]) -> Tensor:
    """Heads of `[batch, seq, heads, ...]`."""
    first = heads[0] if heads else 0
    if heads == tuple(range(first, first + len(heads))):
        return x[:, :, first : first + len(heads)]
    return x[:, :, list(heads)]
