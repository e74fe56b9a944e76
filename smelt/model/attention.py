"""Softmax attention with grouped key-value heads: one module for multi-head, grouped-query and multi-query."""

from torch import Tensor, nn

from smelt.model.cache import LayerCache
from smelt.model.linear import Linear
from smelt.model.masks import Engine
from smelt.model.positions import Rotation, rotate


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023): query head h reads key-value head h // (heads / kv_heads)."""

    def __init__(self, hidden: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q = Linear(hidden, heads * head_dim)
        self.k = Linear(hidden, kv_heads * head_dim)
        self.v = Linear(hidden, kv_heads * head_dim)
        self.o = Linear(heads * head_dim, hidden)

    def forward(self, x: Tensor, rotation: Rotation | None, attend: Engine, cache: LayerCache | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        q, k, v = (matrix(x).unflatten(-1, (-1, self.head_dim)) for matrix in (self.q, self.k, self.v))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.append(k, v)
        heads: Tensor = attend(q, k, v)  # [batch, seq, heads, head_dim]
        out: Tensor = self.o(heads.flatten(-2))
        return out
