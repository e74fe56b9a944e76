"""Granite 4: Mamba-2 with some layers of attention, a shared feed-forward in each, and experts in some models."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    ATTENTION,
    LLAMA_DEFAULTS,
    OUTSIDE,
    PRE_NORMS,
    bias_of,
    check_types,
    from_layers,
    read_choice,
)
from smelt.model.families.hybrid import (
    OLDER_TYPES,
    first_mixer,
    inverse,
    mamba2,
    read_mamba2,
    write_limits,
)
from smelt.model.families.rope import read_rope, write_rope
from smelt.model.families.rules import Rule, joined, same
from smelt.model.families.sparse import ROUTER_LOSS, SILU, first_mixture, require, router, shared_width
from smelt.recipe.parts.attention import GroupedQuery
from smelt.recipe.parts.mamba2 import Mamba2
from smelt.recipe.parts.position import Rope
from smelt.recipe.sections.model import Model

_MIXTURE = "model.layers.{}.block_sparse_moe"


def _read(config: Config) -> Model:
    require(config, "position_embedding_type", None, "nope", "rope")
    read_choice(config, "hidden_act", SILU)
    count = config["num_hidden_layers"]
    types = [OLDER_TYPES.get(kind, kind) for kind in config["layer_types"] or ["mamba"] * count]
    check_types(config, types, "linear_attention", "full_attention")
    inner = int(config["mamba_expand"] * config["hidden_size"])
    mixers = {"linear_attention": read_mamba2(config, inner), "full_attention": _read_attention(config)}
    section = {
        "hidden": config["hidden_size"],
        "layers": count,
        **from_layers([{"attention": mixers[kind]} for kind in types]),
        "position": read_rope(config) if config["position_embedding_type"] == "rope" else {"kind": "none"},
        "feedforward": _read_feedforward(config),
        "norm": {"eps": config["rms_norm_eps"]},
        "tie_embeddings": config["tie_word_embeddings"],
        "embedding_scale": config["embedding_multiplier"],
        "residual_scale": config["residual_multiplier"],
        "logit_scale": 1 / config["logits_scaling"],
        "init": {"kind": "normal", "std": config["initializer_range"] or 0.02},
    }
    return Model.model_validate(section)


def _read_attention(config: Config) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    return {
        "kind": "gqa",
        "heads": heads,
        "kv_heads": config["num_key_value_heads"] or heads,
        "head_dim": config["head_dim"],
        "bias": "all" if config["attention_bias"] else "none",
        "scale": config["attention_multiplier"],
    }


def _read_feedforward(config: Config) -> dict[str, Any]:
    if not config["num_local_experts"]:
        return {"kind": "swiglu", "width": config["shared_intermediate_size"]}
    return {
        "kind": "moe",
        "experts": config["num_local_experts"],
        "top_k": config["num_experts_per_tok"],
        "width": config["intermediate_size"],
        "shared_width": config["shared_intermediate_size"],
    }


def _write(config: Model) -> dict[str, Any]:
    types = {"mamba2": "linear_attention", "gqa": "full_attention"}
    attention = first_mixer(config, "gqa") or GroupedQuery(heads=1, kv_heads=1)
    rotary = next((each.position for each in config.each_layer if isinstance(each.position, Rope)), None)
    return {
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "layer_types": [types.get(layer.attention.kind, "full_attention") for layer in config.each_layer],
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        **({"head_dim": attention.head_dim} if attention.head_dim else {}),
        "attention_bias": bias_of(attention),
        "attention_multiplier": attention.scale or attention.dim(config.hidden) ** -0.5,
        "attention_dropout": 0.0,
        "position_embedding_type": "rope" if rotary else "nope",
        "rope_parameters": write_rope(rotary or Rope()),
        **_write_mamba(config),
        **_write_feedforward(config),
        "hidden_act": "silu",
        "rms_norm_eps": config.norm.eps,
        "tie_word_embeddings": config.tie_embeddings,
        "embedding_multiplier": config.embedding_scale,
        "residual_multiplier": config.residual_scale,
        "logits_scaling": inverse(config.logit_scale),
        "initializer_range": config.init.std,
    }


def _write_mamba(config: Model) -> dict[str, Any]:
    mixer = first_mixer(config, "mamba2") or Mamba2(kind="mamba2", heads=1, head_dim=config.hidden, state=1)
    if mixer.inner % config.hidden:
        raise ValueError(f"the channels of its Mamba-2 ({mixer.inner}) are no multiple of hidden ({config.hidden})")
    return {
        "mamba_expand": mixer.inner // config.hidden,
        "mamba_n_heads": mixer.heads,
        "mamba_d_head": mixer.head_dim,
        "mamba_d_state": mixer.state,
        "mamba_n_groups": mixer.groups,
        "mamba_d_conv": mixer.conv,
        "mamba_chunk_size": mixer.chunk,
        "mamba_proj_bias": mixer.bias,
        "mamba_conv_bias": mixer.conv_bias,
        **write_limits(mixer),
    }


def _write_feedforward(config: Model) -> dict[str, Any]:
    mixture = first_mixture(config)
    if mixture is None:
        width = getattr(config.each_layer[0].feedforward, "width", 1)
        return {"num_local_experts": 0, "shared_intermediate_size": width, "intermediate_size": width}
    return {
        "num_local_experts": mixture.experts,
        "num_experts_per_tok": mixture.top_k,
        "intermediate_size": mixture.width,
        "shared_intermediate_size": shared_width(mixture),
    }


def _shared(ours: str) -> list[Rule]:
    """The network that every token passes: gate and up in one matrix."""
    return [
        joined(
            [f"{ours}.gate.weight", f"{ours}.up.weight"],
            "model.layers.{}.shared_mlp.input_linear.weight",
            lambda layer: [getattr(layer.feedforward, "shared_width", None) or layer.feedforward.width] * 2,
        ),
        same(f"{ours}.down.weight", "model.layers.{}.shared_mlp.output_linear.weight"),
    ]


GRANITEMOEHYBRID = Family(
    architecture="GraniteMoeHybridForCausalLM",
    rules=[
        *OUTSIDE,
        *PRE_NORMS,
        *ATTENTION,
        *mamba2("layers.{}.attention", "model.layers.{}.mamba", lambda layer: layer.attention),
        *_shared("layers.{}.feedforward"),
        *_shared("layers.{}.feedforward.shared"),
        router(f"{_MIXTURE}.router.layer"),
        joined(
            ["layers.{}.feedforward.experts.gate", "layers.{}.feedforward.experts.up"],
            f"{_MIXTURE}.input_linear.weight[{{e}}]",
            lambda layer: [layer.feedforward.width] * 2,
        ),
        same("layers.{}.feedforward.experts.down", f"{_MIXTURE}.output_linear.weight"),
    ],
    defaults={
        **LLAMA_DEFAULTS,
        **ROUTER_LOSS,
        "attention_bias": False,
        "attention_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
        "layer_types": None,
        "position_embedding_type": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 1024,
        "mamba_expand": 2,
        "mamba_n_heads": 128,
        "mamba_d_head": "auto",
        "mamba_d_state": 256,
        "mamba_n_groups": 1,
        "mamba_d_conv": 4,
        "mamba_chunk_size": 256,
        "mamba_proj_bias": False,
        "mamba_conv_bias": True,
        "time_step_limit": None,
        "init_method": None,
    },
    supported={"normalization_function": ("rmsnorm",)},
    read=_read,
    write=_write,
)
