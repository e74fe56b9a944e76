"""A stage of a pipeline: some layers of a decoder under their own names, with what comes before or after them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from smelt.model.decoder import Decoder
from smelt.recipe.sections.model import Model


class Stage(Decoder):
    """The `layers` of a decoder; the first stage has the embedding, the last the norm, the head and further layers.

    Parameters have the names that they have in the whole decoder. A last stage that needs the embedding, for a tied
    head or for further tokens, has one of its own, which is to be kept equal to that of the first.
    """

    def __init__(self, config: Model, vocab: int, dtype: torch.dtype, layers: range) -> None:
        super().__init__(config, vocab, dtype)
        self.first, self.last = layers.start == 0, layers.stop == config.layers
        kept = nn.ModuleList()
        for index in layers:
            kept.add_module(str(index), self.layers[index])
        self.layers = kept
        if not self.first:
            self.positions = None
        if not self.last:
            self.head = self.multi_token = None
            del self.norm, self.means
        if not self.first and not self.borrows:
            del self.embedding

    @property
    def borrows(self) -> bool:
        """Whether this stage uses the embedding of the first stage from another one."""
        shared = self.config.tie_embeddings or self.config.multi_token is not None
        return self.last and not self.first and shared

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        tokens: Tensor,
        targets: Tensor,
        weight: Tensor,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Hidden states for the next stage, `[batch, seq, hidden]`; of the last stage, losses float32 `[batch, seq]`.

        `x` is what the stage before gave, for the first stage anything; others as for a decoder. `weight`, `[batch]`,
        is what the loss of each token of a row will be multiplied by: the auxiliary losses of layers join the gradient
        here, as they do not travel on with the hidden states.
        """
        context = self.context(tokens, starts)
        x, extra = self._through_layers(self.embed(tokens, context) if self.first else x, context)
        if self.last:
            return self._finish(self.norm(x), extra, tokens, targets, context)
        if extra is None:
            return x
        joined: Tensor = _WithLoss.apply(x, extra, weight[:, None] * (context.own(targets) >= 0))
        return joined


class _WithLoss(Function):
    """`x`, and in the backward pass also the gradient of the sum of `extra * weight`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, extra: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight.to(extra.dtype))
        return x.clone()  # no view: the stage detaches its output in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, *ctx.saved_tensors, None
