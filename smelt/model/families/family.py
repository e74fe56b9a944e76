"""What a family is, and the parts of `config.json` that the llama-like ones share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smelt.errors import InputError
from smelt.recipe.parts.position import Rope
from smelt.recipe.sections.model import Model

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of `transformers`.

    `names` maps our parameter names to theirs, `{}` standing for the layer; `defaults` fills fields that a config.json
    may leave out; `supported` gives the fields whose other values mean maths that `Decoder` does not have; `read` and
    `write` translate the rest (ValueError from `write`: the family cannot express the model).
    """

    architecture: str
    names: Mapping[str, str]
    defaults: Config
    supported: Mapping[str, tuple[Any, ...]]
    read: Callable[[Config], Model]
    write: Callable[[Model], dict[str, Any]]

    def theirs(self, name: str) -> str:
        """Their name for our parameter `name`."""
        parts = name.split(".")
        if parts[0] != "layers":
            return self.names[name]
        return self.names[".".join(["layers", "{}", *parts[2:]])].format(parts[1])

    def config(self, raw: Config) -> dict[str, Any]:
        """`raw` with defaults filled in; InputError names a field that is missing or that `Decoder` cannot honour."""
        config = {**self.defaults, **raw}
        for field in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            if not isinstance(config.get(field), int):
                raise InputError(f"config.json: '{field}' is missing or not a whole number; restore it")
        for field, values in self.supported.items():
            if field in config and config[field] not in values:
                allowed = " or ".join(repr(value) for value in values)
                raise InputError(
                    f"config.json: '{field}' is {config[field]!r}, which this decoder does not compute (only "
                    f"{allowed}); use a checkpoint without it"
                )
        return config


LLAMA_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "layers.{}.attention_norm.before.weight": "model.layers.{}.input_layernorm.weight",
    "layers.{}.attention.q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "layers.{}.attention.k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "layers.{}.attention.v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "layers.{}.attention.o.weight": "model.layers.{}.self_attn.o_proj.weight",
    "layers.{}.feedforward_norm.before.weight": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.feedforward.gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "layers.{}.feedforward.up.weight": "model.layers.{}.mlp.up_proj.weight",
    "layers.{}.feedforward.down.weight": "model.layers.{}.mlp.down_proj.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}

PLAIN_ONLY = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "hidden_act": ("silu",),
    "attention_dropout": (0.0, None),
    "pretraining_tp": (1, None),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
    "auto_map": (None,),
}


def read_common(config: Config) -> dict[str, Any]:
    """The model section's fields that all llama-like configs spell alike."""
    heads = config["num_attention_heads"]
    return {
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "attention": {
            "heads": heads,
            "kv_heads": config["num_key_value_heads"] or heads,
            "head_dim": config.get("head_dim"),
        },
        "position": {"kind": "rope", "theta": read_theta(config)},
        "feedforward": {"width": config["intermediate_size"]},
        "norm": {"eps": config["rms_norm_eps"]},
        "tie_embeddings": config["tie_word_embeddings"],
        "init": {"kind": "normal", "std": config["initializer_range"] or 0.02},
    }


def read_theta(config: Config) -> float:
    """The base frequency, from `rope_parameters` or the older `rope_theta` beside `rope_scaling`."""
    theta = config["rope_theta"]
    for field in ("rope_parameters", "rope_scaling"):
        rope = dict(config.get(field) or {})
        kind = rope.pop("rope_type", rope.pop("type", "default"))
        theta = rope.pop("rope_theta", None) or theta
        if rope.get("partial_rotary_factor") in (1.0, None):
            rope.pop("partial_rotary_factor", None)
        if kind != "default" or rope:
            extra = f"rope_type '{kind}'" if kind != "default" else f"'{min(rope)}'"
            raise InputError(
                f"config.json: '{field}' asks for {extra}, which this decoder does not compute (only rope_type "
                "'default' with rope_theta); use a checkpoint without it"
            )
    return float(theta)


def write_common(config: Model) -> dict[str, Any]:
    """The way back from `read_common`; ValueError when layers differ in what these families have once."""
    layers = [config.layer(index) for index in range(config.layers)]
    for index, layer in enumerate(layers):
        for part in ("attention", "feedforward"):
            if getattr(layer, part) != getattr(layers[0], part):
                raise ValueError(f"layer {index} has another {part} than layer 0")
    thetas = {layer.position.theta for layer in layers if isinstance(layer.position, Rope)}
    if len(thetas) > 1:
        raise ValueError(f"its layers use several position.theta ({', '.join(map(str, sorted(thetas)))})")
    return {
        "hidden_size": config.hidden,
        "intermediate_size": layers[0].feedforward.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": layers[0].attention.heads,
        "num_key_value_heads": layers[0].attention.kv_heads,
        "head_dim": layers[0].attention.dim(config.hidden),
        "hidden_act": "silu",
        "rms_norm_eps": config.norm.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": min(thetas, default=Rope().theta)},
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init.std,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
    }
