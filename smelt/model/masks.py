"""Which tokens a token sees: token i sees every j <= i of its own document. One meaning, an engine for each device.

An engine is built once a batch and called by every layer with q `[batch, new, heads, head_dim]` and k, v
`[batch, seen, kv_heads, head_dim]`; it returns `[batch, new, heads, head_dim]`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from smelt.model.causal import causal, scaled_dot_product
from smelt.model.documents import PerDocument
from smelt.model.flex import Flex

Engine = Callable[[Tensor, Tensor, Tensor], Tensor]


def engine(tokens: Tensor, starts: Tensor | None, cached: int | None = None) -> Engine:
    """The engine for `tokens` `[batch, new]` that follow `cached` tokens of the same rows (None: there is no cache).

    `starts`, int32 `[batch, new]`, is the row position where each token's document begins; None means 0 everywhere.
    """
    if starts is None and not cached:
        return causal
    if cached is not None:
        return Dense(visible(tokens, starts, cached))
    if tokens.device.type == "cuda":
        return Flex(starts)
    return PerDocument(starts) if bool(starts.any()) else causal


class Dense:
    """A mask written out in full, for the few new tokens of cached decoding; None lets every token be seen."""

    def __init__(self, mask: Tensor | None) -> None:
        self.mask = mask

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product(q, k, v, self.mask)


def visible(tokens: Tensor, starts: Tensor | None, cached: int) -> Tensor | None:
    """Boolean `[batch or 1, 1, new, cached + new]`, true where the new token sees the key; None where it sees all."""
    new = tokens.shape[1]
    if new == 1 and starts is None:
        return None
    key = torch.arange(cached + new, device=tokens.device)
    mask = (key <= key[cached:, None])[None]  # [1, new, cached + new]
    if starts is not None:
        mask = mask & (key >= starts[:, :, None])
    return mask[:, None]
