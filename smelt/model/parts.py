"""Every kind of mixer and feed-forward, by the name a recipe gives it.

A mixer is `Mixer(config, around)`, with `forward(x, context, cache) -> x` on `[batch, seq, hidden]` and
`new_cache(batch, capacity, dtype, device)`. A feed-forward is `FeedForward(config, around)`, with
`forward(x, context) -> (x, extra)`: `extra`, float32 `[batch, seq]` or None, joins each token's loss in training.
"""

from torch import nn

from smelt.model.attention import GroupedQueryAttention
from smelt.model.feedforward import GeGLU, ReLU2, SwiGLU
from smelt.recipe.parts.custom import Custom, custom_class
from smelt.recipe.parts.part import Part, Surroundings

MIXERS: dict[str, type[nn.Module]] = {"gqa": GroupedQueryAttention}
FEEDFORWARDS: dict[str, type[nn.Module]] = {"swiglu": SwiGLU, "geglu": GeGLU, "relu2": ReLU2}


def build(config: Part, around: Surroundings, table: dict[str, type[nn.Module]]) -> nn.Module:
    """The module for `config`: from `table`, or the user's own class."""
    kind: str = config.kind  # type: ignore[attr-defined]
    owner = custom_class(kind) if isinstance(config, Custom) else table[kind]
    module: nn.Module = owner(config, around)
    return module
