"""The decoder: embedding, layers, norm, head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.auxiliary import with_gradient_of
from smelt.model.cache import Cache, LayerCache
from smelt.model.context import Context
from smelt.model.linear import Linear
from smelt.model.loss import loss_and_log_z, token_loss
from smelt.model.measures import TokenMeans
from smelt.model.multi_token import MultiToken
from smelt.model.norm import RMSNorm
from smelt.model.parts import FEEDFORWARDS, MIXERS, build
from smelt.recipe.parts.norm import Norm
from smelt.recipe.parts.position import Learned
from smelt.recipe.sections.model import Model


class Sublayer(nn.Module):
    """The norms around a mixer or a feed-forward, and the residual stream past it."""

    def __init__(self, hidden: int, norm: Norm, residual_scale: float) -> None:
        super().__init__()
        self.scale = residual_scale
        before, after = norm.placement != "post", norm.placement != "pre"
        self.before = RMSNorm(hidden, norm.eps, norm.zero_centered) if before else None
        self.after = RMSNorm(hidden, norm.eps, norm.zero_centered) if after else None

    def enter(self, x: Tensor) -> Tensor:
        """What the part reads."""
        return x if self.before is None else self.before(x)

    def leave(self, x: Tensor, out: Tensor) -> Tensor:
        """The residual stream `x` with the part's output `out` added."""
        out = out if self.after is None else self.after(out)
        return x + (out if self.scale == 1 else out * self.scale)


class Layer(nn.Module):
    """A mixer and a feed-forward, either of which may be missing."""

    def __init__(self, config: Model, index: int) -> None:
        super().__init__()
        parts, around = config.each_layer[index], config.around(index)
        self.attention = self.feedforward = None
        if parts.attention.kind != "none":
            self.attention_norm = Sublayer(config.hidden, parts.norm, config.residual_scale)
            self.attention = build(parts.attention, around, MIXERS)
        if parts.feedforward.kind != "none":
            self.feedforward_norm = Sublayer(config.hidden, parts.norm, config.residual_scale)
            self.feedforward = build(parts.feedforward, around, FEEDFORWARDS)

    def forward(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> tuple[Tensor, Tensor | None]:
        """`[batch, seq, hidden]` -> the same, and what the feed-forward adds to each token's loss."""
        extra = None
        if self.attention is not None:
            x = self.attention_norm.leave(x, self.attention(self.attention_norm.enter(x), context, cache))
        if self.feedforward is not None:
            out, extra = self.feedforward(self.feedforward_norm.enter(x), context)
            x = self.feedforward_norm.leave(x, out)
        return x, extra

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device) -> LayerCache | None:
        """An empty cache for this layer's mixer."""
        return None if self.attention is None else self.attention.new_cache(batch, capacity, dtype, device)


class Decoder(nn.Module):
    """A model section made of weights. Parameters are float32, activations `dtype`; norms, rotations and loss float32.

    Every weight is NaN until `smelt.model.init.initialise` or a load fills it.
    """

    def __init__(self, config: Model, vocab: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.vocab, self.dtype = config, vocab, dtype
        self.embedding = _table(vocab, config.hidden)
        self.positions = _table(config.position.length, config.hidden) if isinstance(config.position, Learned) else None
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.norm.eps, config.norm.zero_centered)
        self.head = None if config.tie_embeddings else Linear(config.hidden, vocab)
        self.multi_token = None
        if config.multi_token is not None:
            further = (Layer(config, config.layers - 1) for _ in range(config.multi_token.depth))
            self.multi_token = MultiToken(config, further)
        self.means = TokenMeans(*followed(config))
        self.context = Context  # who splits rows among devices puts a subclass here

    def forward(
        self, tokens: Tensor, starts: Tensor | None = None, targets: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Logits, float32 `[batch, seq, vocab]`; with `targets`, the loss of each token, float32 `[batch, seq]`.

        `tokens` int64 `[batch, seq]`; `starts` int32 `[batch, seq]`: the row position where each token's document
        begins (None: 0); `targets` int64 `[batch, seq]`, -100 = no loss. With a `cache`, `tokens` and `starts` are the
        new ones only, and positions go on from the cached tokens. In training the gradient is that of the loss and the
        auxiliary losses together; the value returned is the loss alone.
        """
        context = self.context(tokens, starts, cache.length if cache is not None else 0)
        hidden, extra = self._run(tokens, context, cache)
        if targets is None:
            return self.logits(hidden)
        return self._finish(hidden, extra, tokens, targets, context)

    def _finish(
        self, hidden: Tensor, extra: Tensor | None, tokens: Tensor, targets: Tensor, context: Context
    ) -> Tensor:
        """The loss of each token, whose gradient is that of all losses together; `extra` is what layers have added."""
        own = context.own(targets)
        losses = self.losses(hidden, own)
        if self.training and self.multi_token is not None:
            further = self.multi_token(hidden, tokens, targets, context, self._embedded, self._further_losses)
            extra = further if extra is None else extra + further
        if self.training and extra is not None:
            losses = with_gradient_of(losses, extra * (own >= 0))
        return losses

    def states(self, tokens: Tensor, starts: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Hidden states after the last norm, `[batch, seq, hidden]` in `dtype`; arguments as for `forward`."""
        return self._run(tokens, self.context(tokens, starts, cache.length if cache is not None else 0), cache)[0]

    def _run(self, tokens: Tensor, context: Context, cache: Cache | None) -> tuple[Tensor, Tensor | None]:
        x, total = self._through_layers(self.embed(tokens, context), context, cache)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x), total

    def _through_layers(self, x: Tensor, context: Context, cache: Cache | None = None) -> tuple[Tensor, Tensor | None]:
        total: Tensor | None = None
        for index, layer in enumerate(self.layers):
            x, extra = layer(x, context, cache.layers[index] if cache is not None else None)
            total = extra if total is None else total if extra is None else total + extra
        return x, total

    def embed(self, tokens: Tensor, context: Context) -> Tensor:
        """What the first layer reads, `[batch, seq, hidden]` in `dtype`."""
        x = self._embedded(context.own(tokens))
        if self.positions is not None:
            x = x + F.embedding(context.position_within(self.config.position.length), self.positions.weight)
        return x.to(self.dtype)

    def _embedded(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.embedding.weight)
        return x if self.config.embedding_scale == 1 else x * self.config.embedding_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits `[..., vocab]` of hidden states, the product computed in their dtype."""
        logits = F.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        if self.config.logit_multiplier != 1:
            logits = logits * self.config.logit_multiplier
        if self.config.logit_softcap is not None:
            logits = (logits / self.config.logit_softcap).tanh() * self.config.logit_softcap
        return logits

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The loss of each token, float32 `[batch, seq]`, from its hidden state; `targets` as for `forward`.

        In training its gradient is that of loss + z_loss * log_z ** 2, and `means` takes note of log_z.
        """
        config, z_loss = self.config, self.config.z_loss if self.training else 0.0
        losses, log_z = loss_and_log_z(
            hidden, self.head_weight, targets, config.logit_multiplier, config.logit_softcap, z_loss
        )
        if self.training:
            self.means.add("log_z_abs", log_z.abs(), targets >= 0)
            if z_loss:
                self.means.add("z_loss", z_loss * log_z.square(), targets >= 0)
        return losses

    def _further_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        config = self.config
        losses = token_loss(hidden, self.head_weight, targets, config.logit_multiplier, config.logit_softcap)
        self.means.add("multi_token_loss", losses, targets >= 0)
        return losses

    @property
    def head_weight(self) -> Tensor:
        """`[vocab, hidden]`: the embedding itself when tied."""
        return self.embedding.weight if self.head is None else self.head.weight


def followed(config: Model) -> tuple[str, ...]:
    """Names of what a decoder in training takes means of beside its loss."""
    kept = {"log_z_abs": True, "z_loss": config.z_loss > 0, "multi_token_loss": config.multi_token is not None}
    return tuple(name for name in kept if kept[name])


def _table(rows: int, hidden: int) -> nn.Embedding:
    return nn.Embedding(rows, hidden, _weight=torch.full((rows, hidden), torch.nan))
