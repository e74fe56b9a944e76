"""Every kind of mixer and feed-forward, by the name a recipe gives it.

A mixer is `Mixer(config, around)`, with `forward(x, context, cache) -> x` on `[batch, seq, hidden]` and
`new_cache(batch, capacity, dtype, device)`. A feed-forward is `FeedForward(config, around)`, with
`forward(x, context) -> (x, extra)`: `extra`, float32 `[batch, seq]` or None, joins each token's loss in training.
"""

from torch import nn

from smelt.model.attention import GroupedQueryAttention
from smelt.model.deltanet import GatedDeltaNet
from smelt.model.feedforward import GeGLU, ReLU2, SwiGLU
from smelt.model.latent import LatentAttention
from smelt.model.linear_attention import LinearAttention
from smelt.model.mamba2 import Mamba2
from smelt.model.moe import MixtureOfExperts
from smelt.model.parallel import Parallel
from smelt.recipe.parts.custom import Custom, unchanged_class
from smelt.recipe.parts.part import Part, Surroundings

MIXERS: dict[str, type[nn.Module]] = {
    "gqa": GroupedQueryAttention,
    "mla": LatentAttention,
    "mamba2": Mamba2,
    "gated_deltanet": GatedDeltaNet,
    "linear": LinearAttention,
    "parallel": Parallel,
}
FEEDFORWARDS: dict[str, type[nn.Module]] = {"swiglu": SwiGLU, "geglu": GeGLU, "relu2": ReLU2, "moe": MixtureOfExperts}


def build(config: Part, around: Surroundings, table: dict[str, type[nn.Module]]) -> nn.Module:
    """The module for `config`: from `table`, or the user's own class."""
    kind: str = config.kind  # type: ignore[attr-defined]
    owner = unchanged_class(config) if isinstance(config, Custom) else table[kind]
    module: nn.Module = owner(config, around)
    return module
