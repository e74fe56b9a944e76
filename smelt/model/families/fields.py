"""Fields of `config.json` that families share: rotary positions and their scaling, windows, the llama-like rest."""

import math
from collections.abc import Sequence
from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import Config
from smelt.model.families.rules import Rule, same
from smelt.recipe.parts.position import DualChunk, LinearScaling, Llama3Scaling, NoPosition, Rope
from smelt.recipe.sections.model import Model

OUTSIDE = [
    same("embedding.weight", "model.embed_tokens.weight"),
    same("norm.weight", "model.norm.weight"),
    same("head.weight", "lm_head.weight"),
]
"""What stands before and after the layers."""

ATTENTION = [
    rule
    for name in "qkvo"
    for rule in (
        same(f"layers.{{}}.attention.{name}.weight", f"model.layers.{{}}.self_attn.{name}_proj.weight"),
        same(f"layers.{{}}.attention.{name}.bias", f"model.layers.{{}}.self_attn.{name}_proj.bias"),
    )
]
QK_NORM = [
    same(f"layers.{{}}.attention.{name}_norm.weight", f"model.layers.{{}}.self_attn.{name}_norm.weight")
    for name in "qk"
]
FEEDFORWARD = [
    rule
    for name in ("gate", "up", "down")
    for rule in (
        same(f"layers.{{}}.feedforward.{name}.weight", f"model.layers.{{}}.mlp.{name}_proj.weight"),
        same(f"layers.{{}}.feedforward.{name}.bias", f"model.layers.{{}}.mlp.{name}_proj.bias"),
    )
]
PRE_NORMS = [
    same("layers.{}.attention_norm.before.weight", "model.layers.{}.input_layernorm.weight"),
    same("layers.{}.feedforward_norm.before.weight", "model.layers.{}.post_attention_layernorm.weight"),
]
LLAMA_RULES: list[Rule] = [*OUTSIDE, *PRE_NORMS, *ATTENTION, *FEEDFORWARD]

ROPE = {
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10_000.0,
    "partial_rotary_factor": None,
    "original_max_position_embeddings": None,
}
"""The fields that `read_rope` reads, for `Family.defaults`."""

LLAMA_DEFAULTS = {
    **ROPE,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
}
"""What `read_llama` reads, for `Family.defaults`."""

ACTIVATIONS = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}


def read_llama(config: Config, partial: bool = False, **changes: Any) -> dict[str, Any]:
    """The model section of a llama-like config; `changes` are merged into its parts; `partial` as for `read_rope`."""
    heads = config["num_attention_heads"]
    section = {
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "attention": {
            "heads": heads,
            "kv_heads": config["num_key_value_heads"] or heads,
            "head_dim": config["head_dim"],
        },
        "position": read_rope(config, partial),
        "feedforward": {"kind": read_choice(config, "hidden_act", ACTIVATIONS), "width": config["intermediate_size"]},
        "norm": {"eps": config["rms_norm_eps"]},
        "tie_embeddings": config["tie_word_embeddings"],
        "init": {"kind": "normal", "std": config["initializer_range"] or 0.02},
    }
    for name, value in changes.items():
        section[name] = {**section[name], **value} if isinstance(section.get(name), dict) else value
    return section


def write_llama(config: Model) -> dict[str, Any]:
    """The way back from `read_llama`, as layer 0 has it."""
    feedforward = part(config.layer(0).feedforward, "feedforward", *ACTIVATIONS.values())
    return {
        **write_common(config, part(config.layer(0).attention, "attention", "gqa")),
        "intermediate_size": feedforward.width,
        "hidden_act": write_choice(feedforward.kind, ACTIVATIONS),
    }


def write_common(config: Model, attention: Any) -> dict[str, Any]:
    """The fields of `write_llama` but for the feed-forward's; `attention` is the one to describe."""
    rotary = next((each.position for each in config.each_layer if isinstance(each.position, Rope)), Rope())
    return {
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.dim(config.hidden),
        "rms_norm_eps": config.norm.eps,
        "rope_parameters": write_rope(rotary),
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init.std,
        "attention_dropout": 0.0,
    }


def part(found: Any, name: str, *kinds: str) -> Any:
    """`found`, a part of a layer, if it is of one of these kinds; ValueError otherwise."""
    if found.kind not in kinds:
        raise ValueError(f"its {name} is '{found.kind}', not {' or '.join(dict.fromkeys(kinds))}")
    return found


def read_choice(config: Config, field: str, choices: dict[str, str]) -> str:
    """Our word for the value of `field`; InputError when we have none."""
    if config[field] not in choices:
        raise InputError(
            f"config.json: '{field}' is {config[field]!r}, which this decoder does not compute (only "
            f"{', '.join(choices)}); use a checkpoint without it"
        )
    return choices[config[field]]


def write_choice(ours: str, choices: dict[str, str]) -> str:
    """Their word for ours."""
    return next(theirs for theirs, word in choices.items() if word == ours)


def bias_of(attention: Any) -> bool:
    """Whether all four projections have a bias; ValueError where only some do, or where this is no `gqa`."""
    if part(attention, "attention", "gqa").bias == "qkv":
        raise ValueError("attention.bias is 'qkv', and it has biases on all four projections or none")
    return bool(attention.bias == "all")


# Positions


def read_rope(config: Config, partial: bool = False) -> dict[str, Any]:
    """Rotary positions from `rope_parameters`, or from the older `rope_theta` beside `rope_scaling`.

    `partial`: the family turns `partial_rotary_factor` of each head.
    """
    name = "rope_scaling" if config["rope_scaling"] else "rope_parameters"  # the order of transformers
    rope = dict(config[name] or {})
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    theta = rope.pop("rope_theta", None) or config["rope_theta"]
    fraction = rope.pop("partial_rotary_factor", None) or config["partial_rotary_factor"] or 1.0
    if fraction != 1 and not partial:
        raise InputError(
            f"config.json: 'partial_rotary_factor' is {fraction!r}, which this family does not compute (only 1.0); "
            "use a checkpoint without it"
        )
    inside = rope.pop("original_max_position_embeddings", None)
    original = config["original_max_position_embeddings"] or inside or config["max_position_embeddings"]
    scaling = _read_scaling(kind, rope, original, config, name)
    unread = [field for field, value in rope.items() if value is not None]
    if unread:
        raise InputError(
            f"config.json: '{name}' has '{unread[0]}', which this decoder does not compute for rope_type '{kind}'; "
            "use a checkpoint without it"
        )
    return {"kind": "rope", "theta": float(theta), "fraction": fraction, "scaling": scaling}


def _read_scaling(kind: str, rope: dict[str, Any], original: int, config: Config, where: str) -> dict[str, Any] | None:
    """The scaling that `rope` describes, taking what it reads out of it."""
    if kind == "default":
        return None
    if kind == "linear":
        return {"kind": kind, "factor": rope.pop("factor")}
    if kind == "llama3":
        low, high = rope.pop("low_freq_factor"), rope.pop("high_freq_factor")
        factor = rope.pop("factor")
        return {"kind": kind, "factor": factor, "original": original, "low_frequency": low, "high_frequency": high}
    if kind == "yarn":
        factor = rope.pop("factor") or config["max_position_embeddings"] / original
        return {
            "kind": kind,
            "factor": factor,
            "original": original,
            "beta_fast": rope.pop("beta_fast", None) or 32.0,
            "beta_slow": rope.pop("beta_slow", None) or 1.0,
            "temperature": _temperature(factor, rope),
            "truncate": rope.pop("truncate", True),
        }
    raise InputError(
        f"config.json: '{where}' asks for rope_type '{kind}', which this decoder does not compute (only default, "
        "linear, llama3, yarn); use a checkpoint without it"
    )


def _temperature(factor: float, rope: dict[str, Any]) -> float | None:
    """`attention_factor`, or the ratio that DeepSeek's two `mscale` fields give, or None for the usual."""
    given, over, under = (rope.pop(name, None) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if given is None and over and under:
        above, below = (0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0 for scale in (over, under))
        return above / below
    return None if given is None else float(given)


def write_rope(position: Rope) -> dict[str, Any]:
    """`rope_parameters` of rotary positions; ValueError for a scaling that transformers does not have."""
    scaling = position.scaling
    fields: dict[str, Any] = {"rope_type": "default", "rope_theta": position.theta}
    if position.fraction != 1:
        fields["partial_rotary_factor"] = position.fraction
    if scaling is None:
        return fields
    if isinstance(scaling, DualChunk):
        raise ValueError(f"position.scaling is '{scaling.kind}', which transformers does not have")
    fields |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if isinstance(scaling, LinearScaling):
        return fields
    fields["original_max_position_embeddings"] = scaling.original
    if isinstance(scaling, Llama3Scaling):
        return {**fields, "low_freq_factor": scaling.low_frequency, "high_freq_factor": scaling.high_frequency}
    if scaling.temperature is not None:
        fields["attention_factor"] = scaling.temperature
    ramp = {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
    return {**fields, **ramp}


# Layers that differ


def read_windows(config: Config, layer_types: Sequence[str] | None) -> list[dict[str, Any]]:
    """`per_layer` for a `layer_types` of full and sliding attention, as wide as `sliding_window`."""
    types = layer_types or ["full_attention"] * config["num_hidden_layers"]
    check_types(config, types, "full_attention", "sliding_attention")
    window = config["sliding_window"]
    return per_layer([{"attention": {"window": window}} if kind == "sliding_attention" else {} for kind in types])


def check_types(config: Config, types: Sequence[str], *known: str) -> None:
    """InputError unless `types` has one of the `known` for every layer, and a window for those that slide."""
    if len(types) != config["num_hidden_layers"]:
        raise InputError(
            f"config.json: 'layer_types' has {len(types)} entries for {config['num_hidden_layers']} layers; give one "
            "a layer"
        )
    for kind in types:
        if kind not in known:
            raise InputError(f"config.json: 'layer_types' has {kind!r}, not one of {', '.join(known)}; correct it")
    if "sliding_attention" in types and not config["sliding_window"]:
        raise InputError("config.json: 'layer_types' has 'sliding_attention' but 'sliding_window' is off; set it")


QWEN_WINDOWS = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None}
"""What `read_qwen_windows` reads, for `Family.defaults`."""


def read_qwen_windows(config: Config) -> list[dict[str, Any]]:
    """`per_layer` for Qwen's windows: in layers from `max_window_layers` on, unless `layer_types` says otherwise."""
    window = config["sliding_window"] if config["use_sliding_window"] else None
    full = config["max_window_layers"] if window else config["num_hidden_layers"]
    types = config["layer_types"] or [
        "full_attention" if index < full else "sliding_attention" for index in range(config["num_hidden_layers"])
    ]
    return read_windows({**config, "sliding_window": window}, types)


def write_qwen_windows(config: Model) -> dict[str, Any]:
    """The way back from `read_qwen_windows`."""
    fields = write_windows(config)
    return {**fields, "use_sliding_window": fields["sliding_window"] is not None}


def write_windows(config: Model) -> dict[str, Any]:
    """`layer_types` and `sliding_window`; ValueError when layers have windows of several widths."""
    windows = [part(layer.attention, "attention", "gqa").window for layer in config.each_layer]
    widths = sorted({window for window in windows if window})
    if len(widths) > 1:
        raise ValueError(f"its layers have windows of several widths ({', '.join(map(str, widths))})")
    return {
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
        "sliding_window": widths[0] if widths else None,
    }


def per_layer(changes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`per_layer` of a model section from the changes of each layer, equal ones joined into slices."""
    groups: list[tuple[dict[str, Any], list[int]]] = []
    for index, change in enumerate(changes):
        if not change:
            continue
        same_change = next((chosen for known, chosen in groups if known == change), None)
        if same_change is None:
            groups.append((change, [index]))
        else:
            same_change.append(index)
    return [{"layers": layers, **change} for change, chosen in groups for layers in _slices(chosen, len(changes))]


def from_layers(layers: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The parts of a model section with these parts in its layers: those of the commonest layer, and `per_layer`.

    Parts of one kind must give the same fields, as a change merges into what it changes.
    """
    common = max(layers, key=layers.count)
    changes = [{name: value for name, value in layer.items() if value != common[name]} for layer in layers]
    return {**common, "per_layer": per_layer(changes)}


def _slices(chosen: list[int], count: int) -> list[str]:
    """`chosen` layers as one slice where they are evenly spaced to the end or next to each other, else one by one."""
    if len(chosen) > 1 and chosen == list(range(count))[chosen[0] :: chosen[1] - chosen[0]]:
        step = chosen[1] - chosen[0]
        return [f"{chosen[0]}:" if step == 1 else f"{chosen[0]}::{step}"]
    runs: list[list[int]] = []
    for index in chosen:
        if runs and index == runs[-1][1]:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    return [str(first) if last == first + 1 else f"{first}:{last}" for first, last in runs]


def has_rope(config: Model) -> list[bool]:
    """For each layer, whether it has rotary positions; ValueError where it has another kind than these or none."""
    for layer in config.each_layer:
        if not isinstance(layer.position, (Rope, NoPosition)):
            raise ValueError(f"its position is '{layer.position.kind}'")
    return [isinstance(layer.position, Rope) for layer in config.each_layer]
