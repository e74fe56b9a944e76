"""Several mixers side by side in one layer, as in Falcon-H1 and Hymba."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smelt.model.cache import LayerCache
from smelt.model.context import Context
from smelt.recipe.parts import parallel
from smelt.recipe.parts.part import Surroundings


class Caches:
    """The caches of the branches."""

    def __init__(self, branches: Sequence[LayerCache]) -> None:
        self.branches = branches

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return sum(branch.bytes for branch in self.branches)

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        for branch in self.branches:
            branch.keep(rows)


class Parallel(nn.Module):
    """The sum over branches of output_scale * mixer(input_scale * x)."""

    def __init__(self, config: parallel.Parallel, around: Surroundings) -> None:
        super().__init__()
        from smelt.model.parts import MIXERS, build  # that table holds this class

        self.scales = [(branch.input_scale, branch.output_scale) for branch in config.branches]
        self.branches = nn.ModuleList(build(branch.mixer, around, MIXERS) for branch in config.branches)

    def forward(self, x: Tensor, context: Context, cache: Caches | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        caches = [None] * len(self.branches) if cache is None else cache.branches
        total: Tensor | None = None
        for branch, (before, after), kept in zip(self.branches, self.scales, caches, strict=True):
            out = branch(x if before == 1 else x * before, context, kept)
            out = out if after == 1 else out * after
            total = out if total is None else total + out
        return total

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device) -> Caches:
        """A cache for each branch."""
        return Caches([branch.new_cache(batch, capacity, dtype, device) for branch in self.branches])
