"""What llama-like families share: tensors, fields of `config.json`, windows, layers that differ."""

from collections.abc import Sequence
from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import Config
from smelt.model.families.rope import ROPE, read_rope, write_rope
from smelt.model.families.rules import Rule, same
from smelt.recipe.parts.position import NoPosition, Rope
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
    feedforward = part(config.each_layer[0].feedforward, "feedforward", *ACTIVATIONS.values())
    return {
        **write_common(config, part(config.each_layer[0].attention, "attention", "gqa")),
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
