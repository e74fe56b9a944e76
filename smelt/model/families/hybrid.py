"""Fields and tensors that families share whose layers differ in kind: Mamba-2 beside attention."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from smelt.model.families.family import Config
from smelt.model.families.rules import Rule, joined, same, via
from smelt.model.families.sparse import require
from smelt.recipe.parts.mamba2 import Mamba2
from smelt.recipe.sections.model import Layer, Model

OLDER_TYPES = {"mamba": "linear_attention", "attention": "full_attention"}
"""What configs called their types of layers before transformers 5."""

_PROJECTIONS = ("gate", "x", "b", "c", "dt")


def first_mixer(config: Model, kind: str) -> Any:
    """The first mixer of this kind, or None."""
    return next((layer.attention for layer in config.each_layer if layer.attention.kind == kind), None)


def read_mamba2(config: Config, inner: int) -> dict[str, Any]:
    """The Mamba-2 section that granitemoehybrid and falcon_h1 spell alike; `inner` is the channels of all heads."""
    heads = config["mamba_n_heads"]
    require(config, "mamba_d_head", "auto", inner / heads)
    return {
        "kind": "mamba2",
        "heads": heads,
        "head_dim": inner // heads,
        "state": config["mamba_d_state"],
        "groups": config["mamba_n_groups"],
        "norm_groups": config["mamba_n_groups"],
        "conv": config["mamba_d_conv"],
        "chunk": config["mamba_chunk_size"],
        "bias": config["mamba_proj_bias"],
        "conv_bias": config["mamba_conv_bias"],
        **read_limits(config),
    }


def mamba2(ours: str, theirs: str, pick: Callable[[Layer], Mamba2]) -> list[Rule]:
    """Rules for a Mamba-2 whose file stacks the input projections; `pick` finds its part in a layer."""

    def sizes(layer: Layer) -> list[int]:
        mixer = pick(layer)
        shared = mixer.groups * mixer.state
        return [mixer.inner, mixer.inner, shared, shared, mixer.heads]

    return [
        joined([f"{ours}.{name}.weight" for name in _PROJECTIONS], f"{theirs}.in_proj.weight", sizes),
        joined([f"{ours}.{name}.bias" for name in _PROJECTIONS], f"{theirs}.in_proj.bias", sizes),
        convolution(ours, theirs),
        same(f"{ours}.conv.bias", f"{theirs}.conv1d.bias"),
        same(f"{ours}.a_log", f"{theirs}.A_log"),
        same(f"{ours}.dt_bias", f"{theirs}.dt_bias"),
        same(f"{ours}.d", f"{theirs}.D"),
        same(f"{ours}.norm.weight", f"{theirs}.norm.weight"),
        same(f"{ours}.out.weight", f"{theirs}.out_proj.weight"),
        same(f"{ours}.out.bias", f"{theirs}.out_proj.bias"),
    ]


def convolution(ours: str, theirs: str) -> Rule:
    """A depthwise convolution's `[channels, 1, width]`, without the middle axis."""

    def load(weight: Tensor, layer: Layer) -> Tensor:
        return weight.squeeze(1)

    def save(weight: Tensor, layer: Layer) -> Tensor:
        return weight.unsqueeze(1)

    return via(f"{ours}.conv.weight", f"{theirs}.conv1d.weight", load, save)


def read_limits(config: Config) -> dict[str, Any]:
    """`dt_min` and `dt_max` from `time_step_limit`, whose infinity JSON can spell in two ways."""
    low, high = config["time_step_limit"] or (0.0, math.inf)
    high = float(high["__float__"]) if isinstance(high, dict) else high
    return {"dt_min": low, "dt_max": None if high == math.inf else high}


def write_limits(mixer: Mamba2) -> dict[str, Any]:
    """`time_step_limit`, where it is not the usual one."""
    if mixer.dt_max is None and mixer.dt_min == 0:
        return {}
    high: Any = {"__float__": "Infinity"} if mixer.dt_max is None else mixer.dt_max
    return {"time_step_limit": [mixer.dt_min, high]}


def inverse(value: float) -> float:
    """1 / value, with the digits that rounding left behind dropped where that is the exact inverse too."""
    rounded = float(f"{1 / value:.12g}")
    return rounded if 1 / rounded == value else 1 / value
