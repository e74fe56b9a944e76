"""Nemotron-H: a layer is one thing, Mamba-2, attention, a feed-forward or experts, in any pattern; no positions."""

from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import Config, Family
from smelt.model.families.fields import from_layers
from smelt.model.families.hybrid import OLDER_TYPES, first_mixer, mamba2, read_limits
from smelt.model.families.rules import same
from smelt.model.families.sparse import experts, first_mixture, require, router, shared_width
from smelt.recipe.parts.attention import GroupedQuery
from smelt.recipe.parts.mamba2 import Mamba2
from smelt.recipe.sections.model import Layer, Model

_LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
_NOTHING = {"kind": "none"}
_THEIRS = "backbone.layers.{}.mixer"


def _read(config: Config) -> Model:
    types = _types(config)
    require(config, "num_hidden_layers", None, len(types))
    require(config, "rms_norm_eps", None, config["layer_norm_epsilon"])
    require(config, "attention_head_dim", None, config["head_dim"])
    if read_limits(config) != {"dt_min": 0.0, "dt_max": None}:
        raise InputError(
            f"config.json: 'time_step_limit' is {config['time_step_limit']!r}, and transformers clamps by "
            "'time_step_min' alone here; set it to [0, Infinity]"
        )
    if config["mlp_bias"] and "moe" in types:
        require(config, "mlp_bias", False)
    parts = {
        "linear_attention": {"attention": _read_mamba(config), "feedforward": _NOTHING},
        "full_attention": {"attention": _read_attention(config), "feedforward": _NOTHING},
        "mlp": {"attention": _NOTHING, "feedforward": _read_mlp(config)},
        "moe": {"attention": _NOTHING, "feedforward": _read_experts(config)},
    }
    section = {
        "hidden": config["hidden_size"],
        "layers": len(types),
        **from_layers([parts[kind] for kind in types]),
        "position": {"kind": "none"},
        "norm": {"eps": config["layer_norm_epsilon"]},
        "tie_embeddings": False,
        "init": {"kind": "normal", "std": config["initializer_range"] or 0.02},
    }
    return Model.model_validate(section)


def _types(config: Config) -> list[str]:
    """What each layer is, from the list or from the older pattern of letters."""
    found = config["layers_block_type"] or config["layer_types"]
    types = [OLDER_TYPES.get(kind, kind) for kind in found or ()]
    types = types or [_LETTERS.get(letter, letter) for letter in config["hybrid_override_pattern"] or ()]
    for kind in types:
        if kind not in _LETTERS.values():
            raise InputError(f"config.json: a layer is of type {kind!r}, not one of {', '.join(_LETTERS.values())}")
    if not types:
        raise InputError("config.json: 'layers_block_type' is missing; restore it")
    return types


def _read_attention(config: Config) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    return {
        "kind": "gqa",
        "heads": heads,
        "kv_heads": config["num_key_value_heads"] or heads,
        "head_dim": config["head_dim"],
    }


def _read_mamba(config: Config) -> dict[str, Any]:
    return {
        "kind": "mamba2",
        "heads": config["mamba_num_heads"],
        "head_dim": config["mamba_head_dim"],
        "state": config["ssm_state_size"],
        "groups": config["n_groups"],
        "norm_groups": config["n_groups"],
        "conv": config["conv_kernel"],
        "chunk": config["chunk_size"],
        "bias": config["use_bias"],
        "conv_bias": config["use_conv_bias"],
        "dt_min": config["time_step_min"],  # transformers clamps by it, in the parallel form
    }


def _read_mlp(config: Config) -> dict[str, Any]:
    return {"kind": "relu2", "width": config["intermediate_size"], "bias": config["mlp_bias"]}


def _read_experts(config: Config) -> dict[str, Any]:
    return {
        "kind": "moe",
        "experts": config["n_routed_experts"],
        "top_k": config["num_experts_per_tok"],
        "width": config["moe_intermediate_size"],
        "shared_width": config["moe_shared_expert_intermediate_size"],
        "activation": "relu2",
        "score": "sigmoid",
        "normalize": config["norm_topk_prob"],
        "scale": config["routed_scaling_factor"],
        "groups": config["n_group"],
        "groups_kept": config["topk_group"],
        "balance": {"kind": "bias"},
    }


def _write(config: Model) -> dict[str, Any]:
    if config.tie_embeddings:
        raise ValueError("tie_embeddings is True, and it has only False")
    attention = first_mixer(config, "gqa") or GroupedQuery(heads=1, kv_heads=1)
    plain = [layer.feedforward for layer in config.each_layer if layer.feedforward.kind == "relu2"]
    return {
        "hidden_size": config.hidden,
        "layers_block_type": [_type(layer) for layer in config.each_layer],
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.dim(config.hidden),
        "attention_dropout": 0.0,
        **_write_mamba(first_mixer(config, "mamba2")),
        "intermediate_size": plain[0].width if plain else 1,
        "mlp_bias": bool(plain and plain[0].bias),
        **_write_experts(first_mixture(config)),
        "layer_norm_epsilon": config.norm.eps,
        "tie_word_embeddings": False,
        "initializer_range": config.init.std,
    }


def _type(layer: Layer) -> str:
    mixers = {"mamba2": "linear_attention", "gqa": "full_attention"}
    networks = {"relu2": "mlp", "moe": "moe"}
    if layer.attention.kind != "none" and layer.feedforward.kind != "none":
        raise ValueError("its layers have attention and a feed-forward, and it has one of them in a layer")
    found = mixers.get(layer.attention.kind) or networks.get(layer.feedforward.kind)
    if found is None:
        raise ValueError(f"it has no '{layer.attention.kind}' or '{layer.feedforward.kind}' layers")
    return found


def _write_mamba(mixer: Mamba2 | None) -> dict[str, Any]:
    if mixer is None:
        return {}
    return {
        "mamba_num_heads": mixer.heads,
        "mamba_head_dim": mixer.head_dim,
        "ssm_state_size": mixer.state,
        "n_groups": mixer.groups,
        "conv_kernel": mixer.conv,
        "chunk_size": mixer.chunk,
        "use_bias": mixer.bias,
        "use_conv_bias": mixer.conv_bias,
        "time_step_min": mixer.dt_min,
    }


def _write_experts(mixture: Any) -> dict[str, Any]:
    if mixture is None:
        return {}
    return {
        "n_routed_experts": mixture.experts,
        "num_experts_per_tok": mixture.top_k,
        "moe_intermediate_size": mixture.width,
        "moe_shared_expert_intermediate_size": shared_width(mixture),
        "norm_topk_prob": mixture.normalize,
        "routed_scaling_factor": mixture.scale,
        "n_group": mixture.groups,
        "topk_group": mixture.groups_kept,
    }


def _unused(name: str, config: Model) -> bool:
    """Layers of multi-token prediction."""
    return name.startswith("mtp.")


NEMOTRON_H = Family(
    architecture="NemotronHForCausalLM",
    rules=[
        same("embedding.weight", "backbone.embeddings.weight"),
        same("norm.weight", "backbone.norm_f.weight"),
        same("head.weight", "lm_head.weight"),
        same("layers.{}.attention_norm.before.weight", "backbone.layers.{}.norm.weight"),
        same("layers.{}.feedforward_norm.before.weight", "backbone.layers.{}.norm.weight"),
        *(same(f"layers.{{}}.attention.{name}.weight", f"{_THEIRS}.{name}_proj.weight") for name in "qkvo"),
        *mamba2("layers.{}.attention", _THEIRS, lambda layer: layer.attention),
        *(
            same(f"layers.{{}}.feedforward.{name}.{kind}", f"{_THEIRS}.{name}_proj.{kind}")
            for name in ("up", "down")
            for kind in ("weight", "bias")
        ),
        router(f"{_THEIRS}.gate"),
        same("layers.{}.feedforward.balance.bias", f"{_THEIRS}.gate.e_score_correction_bias"),
        *experts(f"{_THEIRS}.experts")[1:],  # without a gate
        *(
            same(f"layers.{{}}.feedforward.shared.{name}.weight", f"{_THEIRS}.shared_experts.{name}_proj.weight")
            for name in ("up", "down")
        ),
    ],
    defaults={
        "num_hidden_layers": None,
        "layers_block_type": None,
        "layer_types": None,
        "hybrid_override_pattern": None,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_head_dim": None,
        "intermediate_size": 21504,
        "mlp_bias": False,
        "mamba_num_heads": 128,
        "mamba_head_dim": 64,
        "ssm_state_size": 128,
        "n_groups": 8,
        "conv_kernel": 4,
        "chunk_size": 128,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_min": 0.001,
        "time_step_limit": None,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 7688,
        "moe_shared_expert_intermediate_size": 7688,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "layer_norm_epsilon": 1e-5,
        "rms_norm_eps": None,
        "initializer_range": 0.02,
        # Of initial values, of kernels, of precision, of layers that are left out:
        **dict.fromkeys(["expand", "time_step_max", "time_step_floor", "time_step_rank", "rescale_prenorm_residual"]),
        **dict.fromkeys(["use_mamba_kernels", "mamba_ssm_cache_dtype", "residual_in_fp32", "num_logits_to_keep"]),
        **dict.fromkeys(["num_nextn_predict_layers", "mtp_layers_block_type", "mtp_hybrid_override_pattern"]),
        **dict.fromkeys(["moe_shared_expert_overlap", "num_query_groups", "output_router_logits", "auto_map"]),
    },
    needed=("num_attention_heads",),
    supported={
        "mlp_hidden_act": ("relu2",),
        "mamba_hidden_act": ("silu",),
        "attention_bias": (False,),
        "mamba_proj_bias": (False,),
        "hidden_dropout": (0.0,),
        "tie_word_embeddings": (False,),
        "n_shared_experts": (1,),
        "moe_latent_size": (None,),
        "sliding_window": (None,),
    },
    unused=_unused,
    full=".balance.bias",
    read=_read,
    write=_write,
)
