"""Which engine computes attention where. All have one meaning, that of `Scope`.

Token i sees every j <= i of its own document that its scope lets it see. An engine is made once a batch and called by
every layer of that scope with q `[batch, new, heads, key_dim]`, k `[batch, new, kv_heads, key_dim]` and v
`[batch, new, kv_heads, value_dim]`; it returns `[batch, new, heads, value_dim]`. `sinks`, float32 `[heads]`, are logits
that join each head's softmax and take probability from the tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from smelt.model.cpu import Blockwise
from smelt.model.dense import dense
from smelt.model.flex import Flex
from smelt.model.scope import Scope

__all__ = ["Engine", "Scope", "dense", "engine"]

Engine = Callable[..., Tensor]


def engine(starts: Tensor | None, device: torch.device, scope: Scope) -> Engine:
    """The engine for whole rows; `starts`, int32 `[batch, seq]`, is where each token's document begins (None: 0)."""
    return Flex(starts, scope) if device.type == "cuda" else Blockwise(starts, scope)
