"""Which experts a token goes to, and how much each one counts."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.fills import constant
from smelt.model.wide import wide
from smelt.recipe.parts.moe import MixtureOfExperts as Config

_TINY = 1e-20  # sigmoids can all be 0


class Routing(NamedTuple):
    """Where tokens go: `chosen` int64 and `weights` float32, both `[tokens, top_k]`; `counts` int64 `[experts]`, the
    choices that fall on each expert; `logits` and `scores`, float32 `[tokens, experts]`."""

    chosen: Tensor
    weights: Tensor
    counts: Tensor
    logits: Tensor
    scores: Tensor

    def probabilities(self) -> Tensor:
        """`scores` of each token, divided by their sum, which is 1 already for a softmax."""
        return self.scores / (self.scores.sum(1, keepdim=True) + _TINY)


class Router(nn.Module):
    """Scores every expert in float32 and takes the `top_k` best, out of the best groups where there are groups."""

    def __init__(self, config: Config, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.full((config.experts, hidden), torch.nan))
        self.bias = nn.Parameter(torch.full((config.experts,), torch.nan)) if config.bias else None
        self.fills = {"bias": constant(0.0)}

    def forward(self, x: Tensor, correction: Tensor | None) -> Routing:
        """`x` `[tokens, hidden]`; `correction`, `[experts]`, joins the scores in the choice, but not in the weights."""
        logits = F.linear(wide(x), self.weight, self.bias)
        scores = logits.softmax(-1) if self.config.score == "softmax" else logits.sigmoid()
        chosen = self._choose(scores.detach() if correction is None else scores.detach() + correction)
        weights = scores.gather(1, chosen)
        if self.config.normalize:
            weights = weights / (weights.sum(1, keepdim=True) + _TINY)
        if self.config.scale != 1:
            weights = weights * self.config.scale
        flat = chosen.flatten()
        counts = torch.zeros_like(self.weight[:, 0], dtype=torch.int64).scatter_add_(0, flat, torch.ones_like(flat))
        return Routing(chosen, weights, counts, logits, scores)

    def _choose(self, scores: Tensor) -> Tensor:
        """A group is as good as the sum of its two best scores (DeepSeek-V3)."""
        if self.config.groups > self.config.groups_kept:
            grouped = scores.unflatten(1, (self.config.groups, -1))  # [tokens, groups, members]
            best = grouped.topk(min(2, grouped.shape[2]), dim=2).values.sum(2)
            kept = torch.zeros_like(best, dtype=torch.bool)
            kept.scatter_(1, best.topk(self.config.groups_kept, dim=1).indices, True)
            scores = grouped.masked_fill(~kept[:, :, None], -torch.inf).flatten(1)
        return scores.topk(self.config.top_k, dim=1).indices
