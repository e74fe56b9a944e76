"""The decoder: embedding, layers, norm, head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.attention import Attention
from smelt.model.cache import Cache, LayerCache
from smelt.model.feedforward import SwiGLU
from smelt.model.linear import Linear
from smelt.model.loss import token_loss
from smelt.model.masks import Engine, engine
from smelt.model.norm import RMSNorm
from smelt.model.positions import Rotation, Rotations, positions
from smelt.recipe.sections.model import Model


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: Model, index: int) -> None:
        super().__init__()
        parts = config.layer(index)
        self.position, self.head_dim = parts.position, config.head_dim(index)
        self.attention_norm = RMSNorm(config.hidden, config.norm_eps)
        self.attention = Attention(config.hidden, parts.attention.heads, parts.attention.kv_heads, self.head_dim)
        self.feedforward_norm = RMSNorm(config.hidden, config.norm_eps)
        self.feedforward = SwiGLU(config.hidden, parts.feedforward.width)

    def forward(self, x: Tensor, rotation: Rotation | None, attend: Engine, cache: LayerCache | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same."""
        x = x + self.attention(self.attention_norm(x), rotation, attend, cache)
        out: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return out


class Decoder(nn.Module):
    """A model section made of weights. Parameters are float32, activations `dtype`; norms, rotations and loss float32.

    Every weight is NaN until `smelt.model.init.initialise` or a load fills it.
    """

    def __init__(self, config: Model, vocab: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.vocab, self.dtype = config, vocab, dtype
        self.embedding = nn.Embedding(vocab, config.hidden, _weight=torch.full((vocab, config.hidden), torch.nan))
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)
        self.head = None if config.tie_embeddings else Linear(config.hidden, vocab)

    def forward(
        self, tokens: Tensor, starts: Tensor | None = None, targets: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Logits, float32 `[batch, seq, vocab]`; with `targets`, the loss of each token, float32 `[batch, seq]`.

        `tokens` int64 `[batch, seq]`; `starts` int32 `[batch, seq]`: the row position where each token's document
        begins (None: 0); `targets` int64 `[batch, seq]`, -100 = no loss. With a `cache`, `tokens` and `starts` are the
        new ones only, and positions go on from the cached tokens.
        """
        hidden = self.states(tokens, starts, cache)
        if targets is None:
            return self.logits(hidden)
        return token_loss(hidden, self.head_weight, targets)

    def states(self, tokens: Tensor, starts: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Hidden states after the last norm, `[batch, seq, hidden]` in `dtype`; arguments as for `forward`."""
        cached = cache.length if cache is not None else None
        attend = engine(tokens, starts, cached)
        rotations = Rotations(positions(starts, cached or 0, tokens.shape[1], tokens.device))
        x = F.embedding(tokens, self.embedding.weight).to(self.dtype)
        for index, layer in enumerate(self.layers):
            rotation = rotations.of(layer.position, layer.head_dim)
            x = layer(x, rotation, attend, cache.layers[index] if cache is not None else None)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits `[..., vocab]` of hidden states, computed in their dtype."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype)).float()

    @property
    def head_weight(self) -> Tensor:
        """`[vocab, hidden]`: the embedding itself when tied."""
        return self.embedding.weight if self.head is None else self.head.weight
