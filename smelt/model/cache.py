"""Keys and values of the tokens already seen, so that decoding computes each token once."""

import torch
from torch import Tensor

from smelt.recipe.sections.model import Model


class LayerCache:
    """One layer's keys and values, `[batch, capacity, kv_heads, head_dim]`, filled from the left."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens' keys and values; returns those of all tokens so far."""
        end = self.length + keys.shape[1]
        self.keys[:, self.length : end], self.values[:, self.length : end] = keys, values
        self.length = end
        return self.keys[:, :end], self.values[:, :end]


class Cache:
    """The cache of a whole decoder for `batch` rows of at most `capacity` tokens, prompt and continuation together."""

    def __init__(
        self, config: Model, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.layers: list[LayerCache] = []
        for index in range(config.layers):
            shape = (batch, capacity, config.layer(index).attention.kv_heads, config.head_dim(index))
            keys, values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
            self.layers.append(LayerCache(keys, values))

    @property
    def length(self) -> int:
        """Tokens stored in each row."""
        return self.layers[0].length

    @property
    def bytes(self) -> int:
        """Bytes the keys and values occupy at full capacity."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
