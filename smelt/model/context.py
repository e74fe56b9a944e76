"""What all layers of one forward pass share: positions, documents, rotations, masks. Each is made once."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from smelt.model.masks import Engine, Scope, engine
from smelt.model.positions import Rotation, positions, rotation
from smelt.recipe.parts.position import Rope


class Context:
    """One batch of tokens, or the new tokens that follow `cached` ones in every row.

    `starts`, int32 `[batch, new]`, is the row position where each token's document begins; None means 0 everywhere.
    `position`, int64 `[batch or 1, new]`, is each token's place in its document.
    """

    def __init__(self, tokens: Tensor, starts: Tensor | None, cached: int = 0) -> None:
        self.starts, self.cached = starts, cached
        self.batch, self.new = tokens.shape
        self.device = tokens.device
        self.position = positions(starts, cached, self.new, tokens.device)
        self._made: dict[Hashable, Any] = {}

    def rotation(self, part: Rope, channels: int) -> Rotation:
        """Cosines and sines for the first `channels` channels of a head, which all turn."""
        key = (part, channels)
        if key not in self._made:
            self._made[key] = rotation(self.position, part, channels)
        made: Rotation = self._made[key]
        return made

    def engine(self, scope: Scope) -> Engine:
        """Attention of the new tokens among themselves, for a row that has nothing cached."""
        if scope not in self._made:
            self._made[scope] = engine(self.starts, self.device, scope)
        made: Engine = self._made[scope]
        return made

    @property
    def index(self) -> Tensor:
        """Row positions of the new tokens, int64 `[new]`."""
        return torch.arange(self.cached, self.cached + self.new, device=self.device)
