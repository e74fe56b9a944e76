"""Falcon-H1: attention and Mamba-2 side by side in every layer, with a factor on everything."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import LLAMA_DEFAULTS, part, read_choice, read_llama, write_common
from smelt.model.families.hybrid import mamba2, read_mamba2, write_limits
from smelt.model.families.rules import same
from smelt.model.families.sparse import SILU, require
from smelt.recipe.parts.attention import GroupedQuery
from smelt.recipe.parts.mamba2 import Mamba2
from smelt.recipe.sections.model import Model

_ATTENTION, _MAMBA = "layers.{}.attention.branches.0", "layers.{}.attention.branches.1"


def _read(config: Config) -> Model:
    read_choice(config, "hidden_act", SILU)
    require(config, "mamba_proj_bias", config["projectors_bias"])
    common = read_llama(config)
    attention = GroupedQuery.model_validate(common["attention"])
    scale = attention.dim(config["hidden_size"]) ** -0.5 * config["key_multiplier"]
    branches = [
        {
            "mixer": {**common["attention"], "scale": scale, "bias": "all" if config["attention_bias"] else "none"},
            "input_scale": config["attention_in_multiplier"],
            "output_scale": config["attention_out_multiplier"],
        },
        {
            "mixer": _read_mamba(config),
            "input_scale": config["ssm_in_multiplier"],
            "output_scale": config["ssm_out_multiplier"],
        },
    ]
    gate, down = config["mlp_multipliers"] or (1.0, 1.0)
    section = {
        **common,
        "attention": {"kind": "parallel", "branches": branches},
        "feedforward": {
            **common["feedforward"],
            "bias": config["mlp_bias"],
            "gate_scale": gate,
            "output_scale": down,
        },
        "embedding_scale": config["embedding_multiplier"],
        "logit_scale": config["lm_head_multiplier"],
    }
    return Model.model_validate(section)


def _read_mamba(config: Config) -> dict[str, Any]:
    inner = config["mamba_d_ssm"] or int(config["mamba_expand"] * config["hidden_size"])
    return {
        **read_mamba2(config, inner),
        "norm_groups": config["mamba_n_groups"] if config["mamba_rms_norm"] else 1,
        "norm": config["mamba_rms_norm"],
        "gate_first": not (config["mamba_rms_norm"] and config["mamba_norm_before_gate"]),
        "scales": config["ssm_multipliers"] or [1.0] * 5,
    }


def _write(config: Model) -> dict[str, Any]:
    branches = part(config.each_layer[0].attention, "attention", "parallel").branches
    if [branch.mixer.kind for branch in branches] != ["gqa", "mamba2"]:
        raise ValueError("its branches are not 'gqa' and then 'mamba2'")
    attention, mamba = (branch.mixer for branch in branches)
    feedforward = part(config.each_layer[0].feedforward, "feedforward", "swiglu")
    fields = write_common(config, attention)
    if attention.head_dim in (None, config.hidden // attention.heads):
        del fields["head_dim"]
    return {
        **fields,
        "hidden_act": "silu",
        "attention_bias": attention.bias == "all",
        "key_multiplier": attention.scale * attention.dim(config.hidden) ** 0.5 if attention.scale else 1.0,
        "attention_in_multiplier": branches[0].input_scale,
        "attention_out_multiplier": branches[0].output_scale,
        "ssm_in_multiplier": branches[1].input_scale,
        "ssm_out_multiplier": branches[1].output_scale,
        **_write_mamba(mamba),
        "intermediate_size": feedforward.width,
        "mlp_bias": feedforward.bias,
        "mlp_multipliers": [feedforward.gate_scale, feedforward.output_scale],
        "embedding_multiplier": config.embedding_scale,
        "lm_head_multiplier": config.logit_scale,
    }


def _write_mamba(mamba: Mamba2) -> dict[str, Any]:
    return {
        "mamba_d_ssm": mamba.inner,
        "mamba_n_heads": mamba.heads,
        "mamba_d_head": mamba.head_dim,
        "mamba_d_state": mamba.state,
        "mamba_n_groups": mamba.groups,
        "mamba_rms_norm": mamba.norm,
        "mamba_norm_before_gate": not mamba.gate_first,
        "mamba_d_conv": mamba.conv,
        "mamba_chunk_size": mamba.chunk,
        "mamba_proj_bias": mamba.bias,
        "projectors_bias": mamba.bias,
        "mamba_conv_bias": mamba.conv_bias,
        "ssm_multipliers": list(mamba.scales),
        **write_limits(mamba),
    }


FALCON_H1 = Family(
    architecture="FalconH1ForCausalLM",
    rules=[
        same("embedding.weight", "model.embed_tokens.weight"),
        same("norm.weight", "model.final_layernorm.weight"),
        same("head.weight", "lm_head.weight"),
        same("layers.{}.attention_norm.before.weight", "model.layers.{}.input_layernorm.weight"),
        same("layers.{}.feedforward_norm.before.weight", "model.layers.{}.pre_ff_layernorm.weight"),
        *(
            same(f"{_ATTENTION}.{name}.{kind}", f"model.layers.{{}}.self_attn.{name}_proj.{kind}")
            for name in "qkvo"
            for kind in ("weight", "bias")
        ),
        *mamba2(_MAMBA, "model.layers.{}.mamba", lambda layer: layer.attention.branches[1].mixer),
        *(
            same(f"layers.{{}}.feedforward.{name}.{kind}", f"model.layers.{{}}.feed_forward.{name}_proj.{kind}")
            for name in ("gate", "up", "down")
            for kind in ("weight", "bias")
        ),
    ],
    defaults={
        **LLAMA_DEFAULTS,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "mlp_bias": False,
        "mamba_d_ssm": 1024,
        "mamba_expand": 2,
        "mamba_n_heads": 128,
        "mamba_d_head": "auto",
        "mamba_d_state": 256,
        "mamba_n_groups": 1,
        "mamba_d_conv": 4,
        "mamba_chunk_size": 256,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "mamba_norm_before_gate": True,
        "mamba_rms_norm": False,
        "projectors_bias": False,
        "time_step_limit": None,
        "time_step_min": None,  # these three are of the initial values
        "time_step_max": None,
        "time_step_floor": None,
        "time_step_rank": None,
        "lm_head_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "mlp_multipliers": None,
        "key_multiplier": 1.0,
        "attention_in_multiplier": 1.0,
        "attention_out_multiplier": 1.0,
        "ssm_multipliers": None,
        "ssm_in_multiplier": 1.0,
        "ssm_out_multiplier": 1.0,
        "num_logits_to_keep": None,
    },
    supported={"mamba_use_mlp": (True,)},
    read=_read,
    write=_write,
)
