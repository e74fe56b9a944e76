"""Multi-token prediction (DeepSeek-V3 report, section 2.2): in training, further layers predict further tokens.

Layer d reads, at token i, what layer d - 1 (the decoder itself for d = 1) made of it beside the embedding of token
i + d, and predicts token i + d + 1 through the decoder's own head. Nothing reads these layers outside training.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.context import Context
from smelt.model.linear import Linear
from smelt.model.loss import IGNORED
from smelt.model.norm import RMSNorm
from smelt.recipe.sections.model import Model


class Further(nn.Module):
    """One layer further: `norm(layer(join([embedding_norm(embedding), state_norm(state)])))`."""

    def __init__(self, config: Model, layer: nn.Module) -> None:
        super().__init__()
        self.embedding_norm, self.state_norm, self.norm = (
            RMSNorm(config.hidden, config.norm.eps, config.norm.zero_centered) for _ in range(3)
        )
        self.join = Linear(2 * config.hidden, config.hidden)
        self.layer = layer

    def forward(self, state: Tensor, embedding: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """Both `[batch, seq, hidden]` -> the next state, and what the layer adds to each token's loss."""
        joined = self.join(torch.cat((self.embedding_norm(embedding), self.state_norm(state)), -1))
        state, extra = self.layer(joined, context)
        return self.norm(state), extra


class MultiToken(nn.ModuleList):
    """The further layers, one for each in `layers`, and the part they have in each token's loss."""

    def __init__(self, config: Model, layers: Iterable[nn.Module]) -> None:
        super().__init__(Further(config, layer) for layer in layers)
        self.weight = config.multi_token.weight

    def forward(
        self,
        state: Tensor,
        tokens: Tensor,
        targets: Tensor,
        context: Context,
        embed: Callable[[Tensor], Tensor],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """What joins the loss of each token, float32 `[batch, seq]`: the mean of the layers' losses times `weight`.

        `state` is the decoder's, after its last norm; `tokens` and `targets`, of entire rows, as for the decoder.
        `embed` gives the embeddings of tokens, `loss` the token losses of states and targets. A layer predicts no token
        beyond the document or row, nor past a target that is ignored.
        """
        terms: list[Tensor] = []
        reached, starts = targets, context.whole.starts
        for ahead, further in enumerate(self, 1):
            embedding = embed(context.own(shifted(tokens, ahead, 0))).to(state.dtype)
            state, extra = further(state, embedding, context)
            reached = shifted(targets, ahead, IGNORED).where(reached != IGNORED, IGNORED)
            if starts is not None:
                reached = reached.where(shifted(starts, ahead, -1) == starts, IGNORED)
            terms.append(loss(state, context.own(reached)) * (self.weight / len(self)))
            if extra is not None:
                terms.append(extra)
        return torch.stack(terms).sum(0)


def shifted(x: Tensor, places: int, beyond: int) -> Tensor:
    """`x` `[batch, seq]` moved `places` to the left, with `beyond` where the row has ended."""
    return F.pad(x[:, places:], (0, min(places, x.shape[1])), value=beyond)
