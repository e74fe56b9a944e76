"""What decoding keeps of the tokens already seen, so that each token is computed once.

A mixer makes its own kind with `new_cache`. Those of attention are here: all tokens, the last ones of a window, or the
latent vectors of multi-head latent attention.
"""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from smelt.errors import InputError

if TYPE_CHECKING:
    from smelt.model.context import Context
    from smelt.model.decoder import Decoder

Seen = tuple[Tensor, Tensor, Tensor]


class LayerCache(Protocol):
    """What one layer keeps; each mixer has its own kind."""

    @property
    def bytes(self) -> int:
        """Bytes of what it keeps of the tokens, at full capacity."""

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""


class KeyValues:
    """Keys and values of every token, `[batch, capacity, kv_heads, head_dim]`, filled from the left."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def append(self, keys: Tensor, values: Tensor, context: "Context") -> Seen:
        """Store the new tokens' keys and values; returns those a new token may see, and their row positions.

        Row positions are int64 `[seen]` or `[batch, seen]`, -1 where a place is empty. InputError past the capacity.
        """
        end = _fill(self.keys, keys, context)
        _fill(self.values, values, context)
        return self.keys[:, :end], self.values[:, :end], torch.arange(end, device=keys.device)

    @property
    def bytes(self) -> int:
        """Bytes of keys and values at full capacity."""
        return self.keys.nbytes + self.values.nbytes

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        self.keys, self.values = self.keys[rows], self.values[rows]


class Ring(KeyValues):
    """Keys and values of the last `window` tokens and of the first `sink_tokens` of each row's document.

    Of the places, `[batch, sink_tokens + window, kv_heads, head_dim]`, the first hold the sinks; token i of a row has
    place sink_tokens + i mod window. `index`, int64 `[batch, places]`, says whose keys a place holds; -1: nobody's.
    """

    def __init__(self, keys: Tensor, values: Tensor, sink_tokens: int) -> None:
        super().__init__(keys, values)
        self.sink_tokens, self.window = sink_tokens, keys.shape[1] - sink_tokens
        self.index = torch.full(keys.shape[:2], -1, dtype=torch.int64, device=keys.device)

    def append(self, keys: Tensor, values: Tensor, context: "Context") -> Seen:
        """As `KeyValues.append`. Earlier ones of several new tokens may see what later ones push out."""
        index = context.index.expand(context.batch, -1)
        before = keys, values, index
        if context.cached and context.new > 1:
            kept = self.keys, self.values, self.index
            before = tuple(torch.cat(pair, 1) for pair in zip(kept, before, strict=True))
        self._store(keys, values, index, context)
        return (self.keys, self.values, self.index) if context.new == 1 else before

    def _store(self, keys: Tensor, values: Tensor, index: Tensor, context: "Context") -> None:
        last = slice(-min(self.window, context.new), None)
        places = self.sink_tokens + context.index[last] % self.window
        self.keys[:, places], self.values[:, places] = keys[:, last], values[:, last]
        is_sink = context.position[:, last] < self.sink_tokens
        self.index[:, places] = index[:, last].masked_fill(is_sink, -1)  # it is kept once, as a sink
        if self.sink_tokens:
            self._store_sinks(keys, values, context)

    def _store_sinks(self, keys: Tensor, values: Tensor, context: "Context") -> None:
        """Keep the sinks among the new tokens: the first tokens of the document that a row is in."""
        start = context.index[-1] - context.position[:, -1:]  # [batch or 1, 1]
        wanted = (start + torch.arange(self.sink_tokens, device=keys.device)).expand(context.batch, -1)
        source = wanted - context.cached
        new = (source >= 0) & (source < context.new)  # [batch, sink_tokens]
        rows = torch.arange(context.batch, device=keys.device)[:, None]
        source = source.clamp(0, context.new - 1)
        sinks = slice(self.sink_tokens)
        self.keys[:, sinks] = torch.where(new[..., None, None], keys[rows, source], self.keys[:, sinks])
        self.values[:, sinks] = torch.where(new[..., None, None], values[rows, source], self.values[:, sinks])
        self.index[:, sinks] = torch.where(new, wanted, self.index[:, sinks])

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        super().keep(rows)
        self.index = self.index[rows]


class Latents:
    """One vector a token for keys and values together, `[batch, capacity, 1, channels]`, filled from the left."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def append(self, vectors: Tensor, context: "Context") -> tuple[Tensor, Tensor]:
        """Store the new tokens' vectors; returns those of all tokens, and their row positions. InputError past the
        capacity."""
        end = _fill(self.vectors, vectors, context)
        return self.vectors[:, :end], torch.arange(end, device=vectors.device)

    @property
    def bytes(self) -> int:
        """Bytes at full capacity."""
        return self.vectors.nbytes

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        self.vectors = self.vectors[rows]


class Cache:
    """The cache of a whole decoder for `batch` rows of at most `capacity` tokens, prompt and continuation together."""

    def __init__(self, model: "Decoder", batch: int, capacity: int) -> None:
        device = model.embedding.weight.device
        self.layers = [layer.new_cache(batch, capacity, model.dtype, device) for layer in model.layers]
        self.length = 0

    @property
    def bytes(self) -> int:
        """Bytes of all layers at full capacity, as `smelt.recipe.account.cache_bytes` foretells."""
        return sum(layer.bytes for layer in self.layers if layer is not None)

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        for layer in self.layers:
            if layer is not None:
                layer.keep(rows)


def _fill(kept: Tensor, new: Tensor, context: "Context") -> int:
    """Write the places of the new tokens; returns how many are filled."""
    end = context.cached + context.new
    if end > kept.shape[1]:
        raise InputError(f"{end} tokens do not fit a cache made for {kept.shape[1]}; make it larger")
    kept[:, context.cached : end] = new
    return end
