"""Gemma 3, the text model: norms before and after sublayers, local and global layers with rotary bases of their own."""

from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    ATTENTION,
    FEEDFORWARD,
    LLAMA_DEFAULTS,
    OUTSIDE,
    QK_NORM,
    bias_of,
    check_types,
    per_layer,
    read_choice,
    read_llama,
    write_choice,
    write_llama,
    write_windows,
)
from smelt.model.families.rope import read_rope, write_rope
from smelt.model.families.rules import same
from smelt.recipe.sections.model import Model

LOCAL, GLOBAL = "sliding_attention", "full_attention"
_ACTIVATIONS = {"gelu_pytorch_tanh": "geglu", "silu": "swiglu"}


def _read(config: Config) -> Model:
    pattern = config["sliding_window_pattern"]
    count = config["num_hidden_layers"]
    types = config["layer_types"] or [LOCAL if (index + 1) % pattern else GLOBAL for index in range(count)]
    check_types(config, types, LOCAL, GLOBAL)
    local = {"attention": {"window": config["sliding_window"]}, "position": read_rope({**config, **_local(config)})}
    section = read_llama(
        {**config, "hidden_act": "silu", **_global(config)},
        attention={
            "bias": "all" if config["attention_bias"] else "none",
            "qk_norm": "head",
            "scale": config["query_pre_attn_scalar"] ** -0.5,
        },
        feedforward={"kind": read_choice(config, "hidden_activation", _ACTIVATIONS)},
        norm={"placement": "sandwich", "zero_centered": True},
        embedding_scale=config["hidden_size"] ** 0.5,
        logit_softcap=config["final_logit_softcapping"],
        per_layer=per_layer([local if kind == LOCAL else {} for kind in types]),
    )
    return Model.model_validate(section)


def _global(config: Config) -> dict[str, Any]:
    """The rotary fields of the global layers under their llama-like names; the older `rope_scaling` is theirs alone."""
    parameters = config["rope_parameters"] or {}
    for name, rope in parameters.items():
        if name not in (LOCAL, GLOBAL):
            raise InputError(f"config.json: 'rope_parameters' has '{name}' beside {LOCAL} and {GLOBAL}; correct it")
        if (rope or {}).get("truncate") is False:
            raise InputError(
                f"config.json: 'rope_parameters' of {name} has 'truncate' false, which transformers overlooks in this "
                "family; use a checkpoint without it"
            )
    joined = {**(parameters.get(GLOBAL) or {}), **(config["rope_scaling"] or {})}
    return {"rope_parameters": joined, "rope_scaling": None}


def _local(config: Config) -> dict[str, Any]:
    """The rotary fields of the local layers."""
    parameters = (config["rope_parameters"] or {}).get(LOCAL)
    return {"rope_parameters": parameters, "rope_scaling": None, "rope_theta": config["rope_local_base_freq"]}


def _write(config: Model) -> dict[str, Any]:
    fields, windows = write_llama(config), write_windows(config)
    layers = config.each_layer
    ropes = {
        LOCAL: next((layer.position for layer in layers if layer.attention.window), layers[0].position),
        GLOBAL: next((layer.position for layer in layers if not layer.attention.window), layers[0].position),
    }
    attention = layers[0].attention
    scale = attention.scale or attention.dim(config.hidden) ** -0.5
    del fields["hidden_act"]
    return {
        **fields,
        **windows,
        "sliding_window": windows["sliding_window"] or 4096,  # transformers wants one even where no layer slides
        "hidden_activation": write_choice(layers[0].feedforward.kind, _ACTIVATIONS),
        "rope_parameters": {name: write_rope(position) for name, position in ropes.items()},
        "attention_bias": bias_of(attention),
        "query_pre_attn_scalar": round(scale**-2),
        "final_logit_softcapping": config.logit_softcap,
        "attn_logit_softcapping": None,
        "use_bidirectional_attention": False,
    }


GEMMA3_TEXT = Family(
    architecture="Gemma3ForCausalLM",
    rules=[
        *OUTSIDE,
        same("layers.{}.attention_norm.before.weight", "model.layers.{}.input_layernorm.weight"),
        same("layers.{}.attention_norm.after.weight", "model.layers.{}.post_attention_layernorm.weight"),
        same("layers.{}.feedforward_norm.before.weight", "model.layers.{}.pre_feedforward_layernorm.weight"),
        same("layers.{}.feedforward_norm.after.weight", "model.layers.{}.post_feedforward_layernorm.weight"),
        *ATTENTION,
        *QK_NORM,
        *FEEDFORWARD,
    ],
    defaults={
        **LLAMA_DEFAULTS,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "tie_word_embeddings": True,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "layer_types": None,
        "sliding_window_pattern": 6,
        "_sliding_window_pattern": None,  # what the layer_types beside it were made with
        "final_logit_softcapping": None,
    },
    supported={
        "attn_logit_softcapping": (None,),  # transformers stores it and does not apply it
        "use_bidirectional_attention": (False, None),
    },
    read=_read,
    write=_write,
)
