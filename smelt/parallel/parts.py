"""How the matrices of each kind of mixer and feed-forward are cut for tensor parallelism: a line a kind.

Everything here lies between the points where a part reads the residual stream, the same on every process, and where its
results are summed over processes: so what is cut nowhere has gradients that are summed too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smelt.model.attention import GroupedQueryAttention
from smelt.model.convolution import Convolution
from smelt.model.deltanet import GatedDeltaNet
from smelt.model.experts import Experts, Shared
from smelt.model.feedforward import GeGLU, ReLU2, SwiGLU
from smelt.model.gates import Fixed, HeadDecay
from smelt.model.latent import LatentAttention
from smelt.model.linear import Linear
from smelt.model.linear_attention import LinearAttention
from smelt.model.mamba2 import Mamba2
from smelt.model.moe import MixtureOfExperts
from smelt.model.norm import RMSNorm
from smelt.model.parallel import Parallel
from smelt.parallel.exchange import Exchange
from smelt.parallel.local import adapt, localised, view


@dataclasses.dataclass(frozen=True)
class Cut:
    """`columns` and `rows` name linear maps, `along` parameters by the dimension they are cut along, `counts` fields of
    the part's config that are divided."""

    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    along: dict[str, int] = dataclasses.field(default_factory=dict)
    counts: tuple[str, ...] = ()


_DENSE = Cut(("gate", "up"), ("down",))
_EXPERTS = {"gate": 1, "up": 1, "down": 2, "gate_bias": 1, "up_bias": 1}
CUTS: dict[type[nn.Module], Cut] = {
    GroupedQueryAttention: Cut(("q", "k", "v", "gate"), ("o",), {"sinks": 0}, ("heads", "kv_heads")),
    LatentAttention: Cut(("q", "q_up", "k_up", "v_up"), ("o",), {}, ("heads",)),
    Mamba2: Cut(("gate", "x", "b", "c", "dt"), ("out",), {"a_log": 0, "dt_bias": 0, "d": 0}, ("heads", "groups")),
    GatedDeltaNet: Cut(
        ("q", "k", "v", "gate", "b", "a"), ("out",), {"a_log": 0, "dt_bias": 0}, ("key_heads", "value_heads")
    ),
    LinearAttention: Cut(("q", "k", "v", "output_gate"), ("out",), {}, ("heads",)),
    SwiGLU: _DENSE,
    GeGLU: _DENSE,
    ReLU2: _DENSE,
    Shared: _DENSE,
    Experts: Cut(along=_EXPERTS),
}
# Of linear attention's gates; those with a "w1" that is not here compress with it what "w" or "w2" reads.
GATES = {"ByHead": ("w",), "ByKey": ("w",), "GateLoop": ("w1", "w2"), "Outer": ("w1", "w2"), "ByElement": ("w2",)}


def share(part: nn.Module, exchange: Exchange) -> None:
    """Cut every parameter of a part, in place."""
    if isinstance(part, Parallel):
        for branch in part.branches:
            share(branch, exchange)
        return
    kind, whole = type(part), getattr(part, "config", None)
    if isinstance(part, MixtureOfExperts):
        for inner in (part.experts, part.shared):
            if inner is not None:
                _cut(inner, CUTS[type(inner)], exchange)
    else:
        _cut(part, CUTS[kind], exchange)
    if kind in _SPECIAL:
        _SPECIAL[kind](part, whole, exchange)
    _keep(part, exchange)


def _cut(part: nn.Module, cut: Cut, exchange: Exchange) -> None:
    from torch.distributed.tensor import Partial, Replicate, Shard

    for name, dim in ((name, dim) for names, dim in ((cut.columns, 0), (cut.rows, 1)) for name in names):
        linear = getattr(part, name, None)
        if not isinstance(linear, Linear) or _shared_by_all(part, name):
            continue
        view(linear, "weight", exchange, Shard(dim))
        if linear.bias is None:
            continue
        if dim == 0:
            view(linear, "bias", exchange, Shard(0))
        else:  # added once, not on every process
            view(linear, "bias", exchange, Replicate(), Partial(), _first_only(exchange))
    for name, dim in cut.along.items():
        if part._parameters.get(name) is not None:
            view(part, name, exchange, Shard(dim))
    if isinstance(part, Experts) and part.down_bias is not None:
        view(part, "down_bias", exchange, Replicate(), Partial(), _first_only(exchange))
    if cut.counts:
        localised(part, "config", lambda config: _divided(config, cut.counts, exchange.size))


def _divided(config: Any, counts: tuple[str, ...], by: int) -> Any:
    """A part's section with these fields divided, except groups that all heads share."""
    shares = {name: getattr(config, name) // by for name in counts if name != "groups" or config.groups > 1}
    if getattr(config, "norm_groups", 1) > 1:
        shares["norm_groups"] = config.norm_groups // by
    return config.model_copy(update=shares)


def _shared_by_all(part: nn.Module, name: str) -> bool:
    """Mamba-2's B and C, where one group serves all heads."""
    return isinstance(part, Mamba2) and name in ("b", "c") and part.config.groups == 1


def _first_only(exchange: Exchange) -> Callable[[Tensor], Tensor]:
    return lambda x: x * float(exchange.rank == 0)


def _keep(part: nn.Module, exchange: Exchange) -> None:
    """Parameters that are cut nowhere."""
    from torch.distributed.tensor import Partial, Replicate

    for module in part.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.requires_grad and not hasattr(parameter, "placements"):
                view(module, name, exchange, Replicate(), Partial())


def _attention(part: GroupedQueryAttention, whole: Any, exchange: Exchange) -> None:
    if whole.qk_norm == "full":
        for norm in (part.q_norm, part.k_norm):
            _across(norm, exchange)
    if part.scope.alibi:
        localised(part, "scope", lambda scope: dataclasses.replace(scope, alibi=_own(scope.alibi, exchange)))


def _mamba2(part: Mamba2, whole: Any, exchange: Exchange) -> None:
    local, groups = part.config, 1 if whole.groups == 1 else exchange.size
    shared = local.groups * local.state
    sizes = [(local.inner, exchange.size), (shared, groups), (shared, groups)]
    _convolution(part.conv, sizes, exchange)
    if part.norm is None:
        return
    if part.norm.parts == 1:
        _across(part.norm, exchange)
    else:
        from torch.distributed.tensor import Shard

        part.norm.parts //= exchange.size
        view(part.norm, "weight", exchange, Shard(0))


def _delta_net(part: GatedDeltaNet, whole: Any, exchange: Exchange) -> None:
    config = part.config
    _convolution(part.conv, [(size, exchange.size) for size in (config.keys, config.keys, config.values)], exchange)


def _linear_attention(part: LinearAttention, whole: Any, exchange: Exchange) -> None:
    gate = part.gate
    if isinstance(gate, Fixed):
        plain = type(gate).forward

        def forward(self: Fixed, x: Tensor) -> HeadDecay:
            return HeadDecay(exchange.mine(plain(self, x).logarithm, 2))

        adapt(gate, {"forward": forward})
        return
    _cut(gate, Cut(GATES[type(gate).__name__], (), {"a": 0}, ("heads",) if hasattr(gate, "config") else ()), exchange)
    if not hasattr(gate, "config"):
        gate.heads //= exchange.size


def _convolution(conv: Convolution, sizes: list[tuple[int, int]], exchange: Exchange) -> None:
    """Its channels are several tensors side by side, each with its local size and the number of pieces it is cut into:
    the parameters stay whole, and this process reads its channels of each."""
    from torch.distributed.tensor import Partial, Replicate

    first, rows = 0, []
    for size, pieces in sizes:
        low = first + size * (exchange.rank if pieces > 1 else 0)
        rows.append(torch.arange(low, low + size, device="cpu"))
        first += size * pieces
    index = torch.cat(rows)
    for name in ("weight", "bias"):
        if conv._parameters.get(name) is not None:
            view(conv, name, exchange, Replicate(), Partial(), lambda x: x[index.to(x.device)])


def _across(norm: RMSNorm, exchange: Exchange) -> None:
    """A norm over channels of which each process has some."""
    from torch.distributed.tensor import Shard

    channels = len(norm.weight)
    view(norm, "weight", exchange, Shard(0))

    def forward(self: RMSNorm, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        squares = exchange.total(wide.square().sum(-1, keepdim=True))
        weight = 1 + self.weight if self.zero_centered else self.weight
        return (wide * (squares / channels + self.eps).rsqrt() * weight).to(x.dtype)

    adapt(norm, {"forward": forward})


def _own(values: tuple[float, ...], exchange: Exchange) -> tuple[float, ...]:
    size = len(values) // exchange.size
    return values[exchange.rank * size : (exchange.rank + 1) * size]


_SPECIAL: dict[type[nn.Module], Callable[..., None]] = {
    GroupedQueryAttention: _attention,
    Mamba2: _mamba2,
    GatedDeltaNet: _delta_net,
    LinearAttention: _linear_attention,
}
