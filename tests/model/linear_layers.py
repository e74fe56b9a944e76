"""Layers with a state by themselves, and what they compute written out from its definition, in float64."""

from typing import Any

import torch
import torch.nn.functional as F
from small_models import generator
from torch import Tensor, nn

from smelt.model.context import Context
from smelt.model.parts import MIXERS, build
from smelt.recipe.parts.norm import Norm
from smelt.recipe.parts.part import Surroundings
from smelt.recipe.parts.position import NoPosition
from smelt.recipe.parts.table import MIXER

HIDDEN = 16
AROUND = Surroundings(HIDDEN, NoPosition(kind="none"), Norm())
GATES = ["none", "lightning", "mamba", "mamba2", "mlstm", "retention", "dfw", "gateloop", "hgrn2", "rwkv6", "gla"]
MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 5, "state": 3, "groups": 2, "conv": 3, "norm_groups": 2}
DELTANET = {"kind": "gated_deltanet", "key_heads": 2, "value_heads": 4, "key_dim": 4, "value_dim": 5, "conv": 3}


def linear(gate: str, **changes: Any) -> dict[str, Any]:
    """Fields of a small layer of linear attention."""
    rank = {"rank": 3} if gate in ("mamba", "gla") else {}
    return {"kind": "linear", "heads": 2, "key_dim": 4, "value_dim": 5, "gate": gate, **rank, **changes}


LAYERS: dict[str, dict[str, Any]] = {
    **{gate: linear(gate) for gate in GATES},
    "mamba2 layer": MAMBA2,
    "gated_deltanet": DELTANET,
    "parallel": {
        "kind": "parallel",
        "branches": [
            {"mixer": MAMBA2, "input_scale": 0.5},
            {"mixer": {"heads": 2, "kv_heads": 1}, "output_scale": 2.0},
            {"mixer": linear("gla")},
        ],
    },
}


def layer(fields: dict[str, Any], around: Surroundings = AROUND, std: float = 0.5, seed: object = 0) -> Any:
    """The module for `fields`, with random weights."""
    module = build(MIXER.validate_python(fields), around, MIXERS)
    scatter(module, std, seed)
    return module


@torch.no_grad()
def scatter(module: nn.Module, std: float = 0.5, seed: object = 0) -> None:
    """Random weights."""
    for name, parameter in module.named_parameters():
        parameter.copy_(std * torch.randn(parameter.shape, generator=generator(f"{name}{seed}")))


def inputs(batch: int, sequence: int, seed: object = 0, hidden: int = HIDDEN) -> Tensor:
    """Random activations."""
    return torch.randn(batch, sequence, hidden, generator=generator(seed))


def context(x: Tensor, starts: Tensor | None = None, cached: int = 0) -> Context:
    """The context of `x` `[batch, seq, hidden]`."""
    return Context(x[..., 0].long(), starts, cached)


def in_pieces(module: Any, x: Tensor, starts: Tensor | None, pieces: list[int]) -> Tensor:
    """The layer's output, computed piece by piece with a cache."""
    cache = module.new_cache(len(x), x.shape[1], x.dtype, x.device)
    outs, first = [], 0
    for size in pieces:
        part = slice(first, first + size)
        outs.append(module(x[:, part], context(x[:, part], None if starts is None else starts[:, part], first), cache))
        first += size
    return torch.cat(outs, 1)


def factors(module: Any, x: Tensor) -> Tensor:
    """What linear attention multiplies its state by, complex `[batch, seq, heads, key_dim, value_dim]`: the table of
    gates, literally."""
    gate, config = module.gate, module.config

    def project(*matrices: Any) -> Tensor:
        out = x.double()
        for matrix in matrices:
            out = out @ matrix.weight.double().T
        return out.unflatten(-1, (config.heads, -1))

    def softplus(y: Tensor) -> Tensor:
        return (1 + y.exp()).log()

    ones = torch.ones(*x.shape[:2], config.heads, config.key_dim, config.value_dim, dtype=torch.complex128)
    match config.gate:
        case "none":
            factor = torch.tensor(1.0)
        case "lightning":
            slopes = 2.0 ** (-8 * torch.arange(1, config.heads + 1).double() / config.heads)
            factor = (-slopes).exp()[:, None, None]
        case "mamba":
            factor = torch.exp(-softplus(project(gate.w1, gate.w2))[..., None, :] * gate.a.double().exp())
        case "mamba2":
            factor = torch.exp(-softplus(project(gate.w)) * gate.a.double().exp()[:, None])[..., None]
        case "mlstm":
            factor = project(gate.w).sigmoid()[..., None]
        case "retention":
            factor = (project(gate.w).sigmoid() ** (1 / config.tau))[..., None]
        case "dfw":
            factor = project(gate.w1).sigmoid()[..., None] * project(gate.w2).sigmoid()[..., None, :]
        case "gateloop":
            factor = (project(gate.w1).sigmoid() * torch.exp(1j * project(gate.w2)))[..., None]
        case "hgrn2":
            factor = (config.floor + (1 - config.floor) * project(gate.w).sigmoid())[..., None]
        case "rwkv6":
            factor = torch.exp(-project(gate.w).exp())[..., None]
        case "gla":
            factor = (project(gate.w1, gate.w).sigmoid() ** (1 / config.tau))[..., None]
    return ones * factor


def _read(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    parts = [matrix(x).double() for matrix in (module.q, module.k, module.v)]
    if module.config.silu:
        parts = [F.silu(part) for part in parts]
    q, k, v = (part.unflatten(-1, (module.config.heads, -1)) for part in parts)
    return q * module.config.key_dim**-0.5, k, v


def _finish(module: Any, x: Tensor, heads: Tensor) -> Tensor:
    if module.norm is not None:
        heads = heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * module.norm.weight
    heads = heads.flatten(-2)
    if module.output_gate is not None:
        heads = heads * module.output_gate(x).sigmoid()
    return heads @ module.out.weight.double().T


def recurrent(module: Any, x: Tensor) -> Tensor:
    """Linear attention of one document a row, token by token."""
    (q, k, v), factor = _read(module, x), factors(module, x)
    state, heads = torch.zeros_like(factor[:, 0]), []
    for token in range(x.shape[1]):
        state = factor[:, token] * state + k[:, token, :, :, None] * v[:, token, :, None]
        heads.append(torch.einsum("bhd,bhde->bhe", q[:, token], state.real))
    return _finish(module, x, torch.stack(heads, 1))


def quadratic(module: Any, x: Tensor) -> Tensor:
    """The same as attention: every token reads each before it, times the factors of the tokens in between."""
    (q, k, v), factor = _read(module, x), factors(module, x)
    heads = []
    for reader in range(x.shape[1]):
        left, seen = torch.ones_like(factor[:, 0]), torch.zeros_like(v[:, 0])
        for writer in range(reader, -1, -1):
            seen = seen + torch.einsum("bhd,bhde,bhd,bhe->bhe", q[:, reader], left.real, k[:, writer], v[:, writer])
            left = left * factor[:, writer]
        heads.append(seen)
    return _finish(module, x, torch.stack(heads, 1))
