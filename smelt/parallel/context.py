"""Context parallelism: each rank holds a part of every row, and layers that look along a row exchange what they need.

Attention and recurrences take their inputs to all tokens of a share of the heads and back (Jacobs et al. 2023), so
that the engines of one device serve as they are, documents included. Any other part that looks along the row, such as
one of the user's own, reads the whole row on every rank.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from smelt.errors import InputError
from smelt.model.attention import GroupedQueryAttention
from smelt.model.context import Context
from smelt.model.decoder import Layer
from smelt.model.deltanet import GatedDeltaNet
from smelt.model.feedforward import GeGLU, ReLU2, SwiGLU
from smelt.model.latent import LatentAttention
from smelt.model.linear_attention import LinearAttention
from smelt.model.mamba2 import Mamba2
from smelt.model.masks import Engine, Scope
from smelt.model.moe import MixtureOfExperts
from smelt.model.parallel import Parallel
from smelt.parallel.rows import Parts

# Mixers that look along the row through their context alone.
ALONG = (GroupedQueryAttention, LatentAttention, Mamba2, GatedDeltaNet, LinearAttention)
WITHIN = (SwiGLU, GeGLU, ReLU2, MixtureOfExperts)  # feed-forwards, which look at a token alone


def context_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    """Make `model`, a decoder or what else makes contexts, work on this rank's part of each row, in place.

    It is called with entire rows, and returns the losses of its own tokens, `[batch, seq / ranks]`. Every rank of the
    one-dimensional `mesh` gets the same rows; gradients are those of its own tokens' losses: their sum over the ranks
    is the gradient of one device. To be called after tensor parallelism, whose hooks must stand around these.
    """
    parts = Parts.over(mesh)
    model.context = functools.partial(PartOfRows, parts)
    for layer in [module for module in model.modules() if isinstance(module, Layer)]:
        _mixer(layer.attention, parts)
        if layer.feedforward is not None and not isinstance(layer.feedforward, WITHIN):
            _read_whole(layer.feedforward, parts)


def _mixer(module: nn.Module | None, parts: Parts) -> None:
    if isinstance(module, Parallel):
        for branch in module.branches:
            _mixer(branch, parts)
    elif module is not None and not isinstance(module, ALONG):
        _read_whole(module, parts)


def _read_whole(module: nn.Module, parts: Parts) -> None:
    """Have `module`, a mixer or feed-forward, called with entire rows and their context; it keeps its own tokens."""

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, context, *rest = args
        return parts.whole(x), context.whole, *rest

    def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        if isinstance(out, tuple):
            return tuple(None if each is None else parts.own(each) for each in out)
        return parts.own(out)

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, prepend=True)


class PartOfRows(Context):
    """The context of one rank's part of every row; made, as any context, from entire rows."""

    def __init__(self, parts: Parts, tokens: Tensor, starts: Tensor | None, cached: int = 0) -> None:
        sequence = tokens.shape[1]
        if sequence % parts.ranks:
            raise InputError(
                f"infra.layout.context: {parts.ranks} ranks cannot share rows of {sequence} tokens equally; "
                "use a divisor of train.sequence"
            )
        assert not cached, "tokens are generated on one device"
        self._parts, self._whole = parts, Context(tokens, starts)
        first = sequence // parts.ranks * parts.rank
        super().__init__(parts.own(tokens), None if starts is None else parts.own(starts), first)

    @property
    def whole(self) -> Context:
        return self._whole

    def own(self, x: Tensor) -> Tensor:
        return self._parts.own(x)

    def engine(self, scope: Scope) -> Engine:
        if scope.alibi:
            scope = dataclasses.replace(scope, alibi=self._parts.share(scope.alibi))

        def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None) -> Tensor:
            return self.by_heads(_Attention(scope), q, k, v, heads=() if sinks is None else (sinks,))

        return attend

    def by_heads(
        self, read: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *more: Tensor, heads: Sequence[Tensor] = ()
    ) -> Tensor:
        count = max(x.shape[2] for x in (q, k, v))
        q, k, v, *more = self._parts.heads(q, k, v, *more)
        if max(q.shape[2], v.shape[2]) == 0:  # a rank may be left without heads, and then gives what it got: nothing
            return self._parts.tokens(v, count)
        out = read(q, k, v, *more, *(self._parts.share(x) for x in heads), self._whole)
        return self._parts.tokens(out, count)

    def before(self, x: Tensor, count: int) -> Tensor:
        return self._parts.before(x, count)


class _Attention(NamedTuple):
    """Attention of a scope, over entire rows."""

    scope: Scope

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *sinks_and_context: Any) -> Tensor:
        *sinks, context = sinks_and_context
        return context.engine(self.scope)(q, k, v, sinks=sinks[0] if sinks else None)
