"""What decoding keeps of the tokens already seen, so that each token is computed once."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from smelt.model.context import Context
    from smelt.model.decoder import Decoder


class LayerCache(Protocol):
    """What one layer keeps; each mixer has its own kind."""

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""


class KeyValues:
    """Keys and values, `[batch, capacity, kv_heads, head_dim]`, filled from the left."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def append(self, keys: Tensor, values: Tensor, context: "Context") -> tuple[Tensor, Tensor, Tensor]:
        """Store the new tokens' keys and values; returns those of all tokens kept, and their row positions."""
        end = self.length + keys.shape[1]
        self.keys[:, self.length : end], self.values[:, self.length : end] = keys, values
        self.length = end
        return self.keys[:, :end], self.values[:, :end], torch.arange(end, device=keys.device)

    @property
    def bytes(self) -> int:
        """Bytes at full capacity."""
        return self.keys.nbytes + self.values.nbytes

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        self.keys, self.values = self.keys[rows], self.values[rows]


class Cache:
    """The cache of a whole decoder for `batch` rows of at most `capacity` tokens, prompt and continuation together."""

    def __init__(self, model: "Decoder", batch: int, capacity: int) -> None:
        device = model.embedding.weight.device
        self.layers = [layer.new_cache(batch, capacity, model.dtype, device) for layer in model.layers]
        self.length = 0

    @property
    def bytes(self) -> int:
        """Bytes of all layers at full capacity."""
        return sum(layer.bytes for layer in self.layers if layer is not None)

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        for layer in self.layers:
            if layer is not None:
                layer.keep(rows)
