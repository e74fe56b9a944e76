"""Which tokens a token sees, and how attention over them is computed. One meaning, an engine for each device.

Token i sees every j <= i of its own document that its `Scope` lets it see. An engine is built once a batch and called
by every layer of that scope with q `[batch, new, heads, head_dim]`, k and v `[batch, new, kv_heads, head_dim]`; it
returns `[batch, new, heads, value_dim]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smelt.model.causal import causal, scaled_dot_product
from smelt.model.documents import PerDocument
from smelt.model.flex import Flex

if TYPE_CHECKING:
    from smelt.model.context import Context

Engine = Callable[..., Tensor]


@dataclass(frozen=True)
class Scope:
    """What a layer sees and how it weighs it; fields as in `smelt.recipe.parts.attention.GroupedQuery`."""

    scale: float
    window: int | None = None
    sink_tokens: int = 0
    chunk: int | None = None
    softcap: float | None = None
    alibi: bool = False


def engine(starts: Tensor | None, device: torch.device, scope: Scope) -> Engine:
    """The engine for whole rows; `starts`, int32 `[batch, seq]`, is where each token's document begins (None: 0)."""
    if starts is None:
        return causal
    if device.type == "cuda":
        return Flex(starts)
    return PerDocument(starts) if bool(starts.any()) else causal


def dense(q: Tensor, k: Tensor, v: Tensor, index: Tensor, context: "Context", scope: Scope) -> Tensor:
    """Attention of a few new tokens over cached ones, whose row positions `index` gives, with the mask written out."""
    return scaled_dot_product(q, k, v, visible(index, context, scope))


def visible(index: Tensor, context: "Context", scope: Scope) -> Tensor | None:
    """Boolean `[batch or 1, 1, new, seen]`, true where the new token sees the key; None where it sees all."""
    if context.new == 1 and context.starts is None:
        return None
    mask = (index <= context.index[:, None])[None]  # [1, new, seen]
    if context.starts is not None:
        mask = mask & (index >= context.starts[:, :, None])
    return mask[:, None]
