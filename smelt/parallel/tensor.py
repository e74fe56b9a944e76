"""Tensor parallelism: each matrix of a layer cut over processes, by columns where it reads the residual stream and by
rows where it writes to it, so that a part of a layer communicates once where it begins and once where it ends.

The model's own code runs as it is, on this process's heads and channels: parameters are DTensors, of which modules see
the local piece, and a part's `config` has local counts. With sequence parallelism what lies between the parts, norms
and residual stream, is cut along the sequence.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from smelt.model.decoder import Decoder, Layer
from smelt.model.experts import Experts
from smelt.model.measures import TokenMeans
from smelt.model.moe import MixtureOfExperts
from smelt.model.multi_token import Further
from smelt.parallel.exchange import Exchange
from smelt.parallel.local import adapt, view
from smelt.parallel.parts import share
from smelt.parallel.world import World


def tensor_parallel(model: nn.Module, world: World) -> None:
    """Spread a decoder, or a stage of one, that is still on the meta device over the tensor dimension of the mesh."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    exchange, pieces = Exchange(world.mesh["tensor"]), world.layout.sequence_parallel
    for layer in [each for each in model.modules() if isinstance(each, Layer)]:
        for part in (layer.attention, layer.feedforward):
            if isinstance(part, MixtureOfExperts) and world.layout.expert > 1:
                _by_tokens(part, exchange, pieces)
            elif part is not None:
                share(part, exchange)
                _bound(part, exchange, pieces)
    for further in [each for each in model.modules() if isinstance(each, Further)]:
        if pieces:
            further.register_forward_pre_hook(lambda _, args: (args[0], exchange.split(args[1]), *args[2:]))
    for name, table in (("embedding", Shard(0)), ("positions", Replicate()), ("head", Shard(0))):
        module = getattr(model, name, None)
        if module is not None:
            rows = len(module.weight)
            whole = (lambda x, rows=rows: exchange.rows(x, rows)) if name != "positions" else None
            view(module, "weight", exchange, table, then=whole)
    for module in model.modules():  # norms and what else lies between the parts
        for name, parameter in list(module._parameters.items()):
            plain = parameter is not None and parameter.requires_grad and not hasattr(parameter, "placements")
            if plain and not isinstance(module, Experts):
                view(module, name, exchange, Replicate(), Partial() if pieces else None)
    adapt(model, _sequence_split(type(model), exchange, pieces))
    for means in [each for each in model.modules() if isinstance(each, TokenMeans)]:
        adapt(means, {"settle": _summed(exchange)})


def _bound(part: nn.Module, exchange: Exchange, pieces: bool) -> None:
    """The communication where a part begins and ends."""
    read, write = (exchange.read_pieces, exchange.write_pieces) if pieces else (exchange.read, exchange.write)

    def leave(_: nn.Module, args: Any, out: Any) -> Any:
        if isinstance(out, Tensor):
            return write(out)
        out, extra = out
        return write(out), None if extra is None else exchange.once(extra)

    part.register_forward_pre_hook(lambda _, args: (read(args[0]), *args[1:]))
    part.register_forward_hook(leave)


def _by_tokens(part: MixtureOfExperts, exchange: Exchange, pieces: bool) -> None:
    """Experts that are shared out whole: each process takes its piece of the sequence to them."""
    from torch.distributed.tensor import Partial, Replicate

    def leave(_: nn.Module, args: Any, out: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        out, extra = out
        if extra is not None:
            extra = _in_place(extra, exchange)
        return (out if pieces else exchange.join(out)), extra

    if not pieces:
        part.register_forward_pre_hook(lambda _, args: (exchange.split(args[0]), *args[1:]))
    part.register_forward_hook(leave)
    for module in part.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.requires_grad and not isinstance(module, Experts):
                view(module, name, exchange, Replicate(), Partial())


def _in_place(piece: Tensor, exchange: Exchange) -> Tensor:
    """`[batch, seq / processes]` -> `[batch, seq]`, zero outside the piece."""
    size = piece.shape[1]
    return F.pad(piece, (exchange.rank * size, (exchange.size - 1 - exchange.rank) * size))


def _sequence_split(plain: Any, exchange: Exchange, pieces: bool) -> dict[str, Callable[..., Any]]:
    """Methods for a subclass of `plain`, a decoder's, each process of which looks up and predicts its piece of the
    sequence alone, so that the use it makes of the tables is partial. Losses are zero outside the piece."""

    def looked_up(self: Decoder, tokens: Tensor) -> Tensor:
        return exchange.join(plain._embedded(self, exchange.mine(tokens)))

    def embed(self: Decoder, tokens: Tensor, context: Any) -> Tensor:
        x = plain.embed(self, tokens, context)
        return exchange.split(x) if pieces else x

    def own(whole: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def losses(self: Decoder, hidden: Tensor, targets: Tensor) -> Tensor:
            own = whole(self, hidden if pieces else exchange.split(hidden), exchange.mine(targets))
            return _in_place(own, exchange)

        return losses

    return {
        "_embedded": looked_up,
        "embed": embed,
        "losses": own(plain.losses),
        "_further_losses": own(plain._further_losses),
    }


def _summed(exchange: Exchange) -> Callable[..., Any]:
    """What was followed token by token, over the pieces of all processes."""

    def settle(self: TokenMeans) -> Any:
        self.sums.copy_(exchange.sum(self.sums))
        return TokenMeans.settle(self)

    return settle
