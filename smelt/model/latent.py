"""Multi-head latent attention: keys and values grow from one small vector a token, and only that vector is cached."""

import torch
from torch import Tensor, nn

from smelt.model.cache import Latents
from smelt.model.context import Context
from smelt.model.linear import Linear
from smelt.model.masks import Scope, dense
from smelt.model.norm import RMSNorm
from smelt.model.positions import Rotary, rotate
from smelt.recipe.parts.latent import Latent
from smelt.recipe.parts.part import Surroundings
from smelt.recipe.parts.position import Rope


class LatentAttention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2, section 2.1).

    A head's query is [without position, rotary]; its key is [grown from the latent vector, the rotary key that all
    heads share]. Rotary channels pair by halves.
    """

    def __init__(self, config: Latent, around: Surroundings) -> None:
        super().__init__()
        self.config = config
        self.rotary = Rotary(around.position, config.rope_dim) if isinstance(around.position, Rope) else None
        hidden, heads, norm = around.hidden, config.heads, around.norm
        key, eps = config.nope_dim + config.rope_dim, config.norm_eps or norm.eps
        self.scope = Scope(scale=config.scale or key**-0.5)
        if config.q_rank is None:
            self.q = Linear(hidden, heads * key)
        else:
            self.q_down = Linear(hidden, config.q_rank)
            self.q_norm = RMSNorm(config.q_rank, eps, norm.zero_centered)
            self.q_up = Linear(config.q_rank, heads * key)
        self.kv_down = Linear(hidden, config.kv_rank)
        self.kv_norm = RMSNorm(config.kv_rank, eps, norm.zero_centered)
        self.k_up = Linear(config.kv_rank, heads * config.nope_dim)
        self.v_up = Linear(config.kv_rank, heads * config.value_dim)
        self.k_rope = Linear(hidden, config.rope_dim)
        self.o = Linear(heads * config.value_dim, hidden, writes=True)

    def forward(self, x: Tensor, context: Context, cache: Latents | None) -> Tensor:
        """`[batch, seq, hidden]` -> the same; with a cache, `x` holds the new tokens only."""
        q = self.q(x) if self.config.q_rank is None else self.q_up(self.q_norm(self.q_down(x)))
        q, q_rope = q.unflatten(-1, (self.config.heads, -1)).split([self.config.nope_dim, self.config.rope_dim], -1)
        latent, k_rope = self.kv_norm(self.kv_down(x)), self.k_rope(x)[:, :, None]
        if self.rotary is not None:
            rotation = context.rotation(self.rotary)
            q_rope, k_rope = rotate(q_rope, rotation), rotate(k_rope, rotation)
        heads = None
        if cache is not None:
            seen, index = cache.append(torch.cat((latent[:, :, None], k_rope), -1), context)
            if context.cached:
                heads = self.absorbed(q, q_rope, seen, index, context)
        if heads is None:
            heads = self.grown(q, q_rope, latent, k_rope, context)
        out: Tensor = self.o(heads.flatten(-2))
        return out

    def grown(self, q: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, context: Context) -> Tensor:
        """Attention over keys and values grown for every head, `[batch, seq, heads, value_dim]`."""
        k, v = (up(latent).unflatten(-1, (self.config.heads, -1)) for up in (self.k_up, self.v_up))
        k = torch.cat((k, k_rope.expand(-1, -1, self.config.heads, -1)), -1)
        return context.engine(self.scope)(torch.cat((q, q_rope), -1), k, v)

    def absorbed(self, q: Tensor, q_rope: Tensor, seen: Tensor, index: Tensor, context: Context) -> Tensor:
        """The same over cached vectors `seen` `[batch, seen, 1, kv_rank + rope_dim]`, without growing keys or values.

        q . (k_up c) = (k_up^T q) . c, and a sum of v_up c is v_up of the sum: so the latent vectors serve all heads.
        """
        heads = self.config.heads
        k_up, v_up = (up.weight.to(q.dtype).unflatten(0, (heads, -1)) for up in (self.k_up, self.v_up))
        q = torch.einsum("bshn,hnr->bshr", q, k_up)
        latent = seen[..., : self.config.kv_rank]
        sums = dense(torch.cat((q, q_rope), -1), seen, latent, index, context, self.scope)
        return torch.einsum("bshr,hvr->bshv", sums, v_up)

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> Latents:
        """Room for `capacity` tokens in each of `batch` rows: kv_rank + rope_dim numbers a token."""
        channels = self.config.kv_rank + self.config.rope_dim
        return Latents(torch.empty(batch, capacity, 1, channels, dtype=dtype, device=device))
