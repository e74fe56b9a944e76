"""DeepSeek-V3: latent attention, a few dense layers, then small experts chosen by sigmoid within groups."""

import math
from typing import Any

import torch
from torch import Tensor

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    FEEDFORWARD,
    LLAMA_DEFAULTS,
    OUTSIDE,
    PRE_NORMS,
    part,
    read_choice,
)
from smelt.model.families.rope import read_rope, write_rope
from smelt.model.families.rules import Rule, same, via
from smelt.model.families.sparse import (
    ROUTER_LOSS,
    SILU,
    dense_width,
    experts,
    first_mixture,
    require,
    router,
    shared,
    shared_width,
)
from smelt.recipe.parts.moe import MixtureOfExperts
from smelt.recipe.parts.position import Yarn
from smelt.recipe.sections.model import Layer, Model

_LATENT_EPS = 1e-6  # of the two norms inside attention, whatever rms_norm_eps says
_OURS, _THEIRS = "layers.{}.attention", "model.layers.{}.self_attn"


def _read(config: Config) -> Model:
    heads, dense = config["num_attention_heads"], config["first_k_dense_replace"] or 0
    require(config, "num_key_value_heads", None, heads)
    require(config, "head_dim", None, config["qk_rope_head_dim"])
    require(config, "qk_head_dim", None, config["qk_nope_head_dim"] + config["qk_rope_head_dim"])
    require(config, "rope_interleave", True)
    read_choice(config, "hidden_act", SILU)
    attention = {
        "kind": "mla",
        "heads": heads,
        "q_rank": config["q_lora_rank"],
        "kv_rank": config["kv_lora_rank"],
        "nope_dim": config["qk_nope_head_dim"],
        "rope_dim": config["qk_rope_head_dim"],
        "value_dim": config["v_head_dim"],
        "scale": _read_scale(config),
        "norm_eps": None if config["rms_norm_eps"] == _LATENT_EPS else _LATENT_EPS,
    }
    mixture = {
        "kind": "moe",
        "experts": config["n_routed_experts"],
        "top_k": config["num_experts_per_tok"],
        "width": config["moe_intermediate_size"],
        "shared_width": config["moe_intermediate_size"] * config["n_shared_experts"],
        "score": "sigmoid",
        "normalize": config["norm_topk_prob"],
        "scale": config["routed_scaling_factor"],
        "groups": config["n_group"],
        "groups_kept": config["topk_group"],
        "balance": {"kind": "bias"},
    }
    plain = {"kind": "swiglu", "width": config["intermediate_size"]}
    section = {
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "attention": attention,
        "position": read_rope(config),
        "feedforward": plain if dense >= config["num_hidden_layers"] else mixture,
        "norm": {"eps": config["rms_norm_eps"]},
        "tie_embeddings": config["tie_word_embeddings"],
        "init": {"kind": "normal", "std": config["initializer_range"] or 0.02},
        "per_layer": [{"layers": f":{dense}", "feedforward": plain}] if dense else [],
    }
    return Model.model_validate(section)


def _read_scale(config: Config) -> float | None:
    """What scores are multiplied by: `mscale_all_dim` stands for a temperature of queries and of keys, so it counts
    twice (DeepSeek-V2, YaRN)."""
    rope = config["rope_scaling"] or config["rope_parameters"] or {}
    if rope.get("rope_type", rope.get("type", "default")) == "default" or not rope.get("mscale_all_dim"):
        return None
    temperature = _temperature(rope["factor"], rope["mscale_all_dim"])
    return float((config["qk_nope_head_dim"] + config["qk_rope_head_dim"]) ** -0.5 * temperature**2)


def _temperature(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def _write(config: Model) -> dict[str, Any]:
    attention = part(config.each_layer[0].attention, "attention", "mla")
    sparse = [layer.feedforward.kind == "moe" for layer in config.each_layer]
    return {
        "hidden_size": config.hidden,
        "intermediate_size": dense_width(config) or 1,
        "num_hidden_layers": config.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.heads,
        "q_lora_rank": attention.q_rank,
        "kv_lora_rank": attention.kv_rank,
        "qk_nope_head_dim": attention.nope_dim,
        "qk_rope_head_dim": attention.rope_dim,
        "v_head_dim": attention.value_dim,
        "first_k_dense_replace": sparse.index(True) if any(sparse) else config.layers,
        **_write_experts(first_mixture(config)),
        "hidden_act": "silu",
        "rms_norm_eps": config.norm.eps,
        "rope_parameters": _write_rope(config),
        "rope_interleave": True,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init.std,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "num_nextn_predict_layers": 0,
    }


def _write_experts(mixture: MixtureOfExperts | None) -> dict[str, Any]:
    if mixture is None:
        return {}
    width = shared_width(mixture)
    if width % mixture.width:
        raise ValueError(f"feedforward.shared_width is {width}, not a multiple of width {mixture.width}")
    return {
        "n_routed_experts": mixture.experts,
        "n_shared_experts": width // mixture.width,
        "num_experts_per_tok": mixture.top_k,
        "moe_intermediate_size": mixture.width,
        "norm_topk_prob": mixture.normalize,
        "routed_scaling_factor": mixture.scale,
        "n_group": mixture.groups,
        "topk_group": mixture.groups_kept,
    }


def _write_rope(config: Model) -> dict[str, Any]:
    """The scale goes into `mscale_all_dim`, and YaRN's temperature into `mscale` beside it."""
    layer = config.each_layer[0]
    position, attention = part(layer.position, "position", "rope"), layer.attention
    fields, scaling = write_rope(position), position.scaling
    if attention.scale is None or not isinstance(scaling, Yarn) or scaling.factor <= 1:
        return fields
    ratio = (attention.scale * (attention.nope_dim + attention.rope_dim) ** 0.5) ** 0.5
    under = (ratio - 1) / (0.1 * math.log(scaling.factor))
    if abs(under) < 1e-9:
        return fields
    fields["mscale_all_dim"] = round(under, 12)
    if scaling.temperature is not None:
        fields["mscale"] = round((scaling.temperature * ratio - 1) / (0.1 * math.log(scaling.factor)), 12)
    return fields


# Rotary rows: theirs pair neighbours (2i, 2i + 1), ours the halves (i, i + rope_dim / 2).


def _to_halves(rows: Tensor) -> Tensor:
    """`[..., rope_dim, inputs]`, neighbours paired -> the same, halves paired."""
    return rows.unflatten(-2, (-1, 2)).transpose(-3, -2).flatten(-3, -2)


def _to_neighbours(rows: Tensor) -> Tensor:
    return rows.unflatten(-2, (2, -1)).transpose(-3, -2).flatten(-3, -2)


def _queries(ours: str, theirs: str) -> Rule:
    """A head's rows are [without position, rotary] in both."""

    def turn(weight: Tensor, layer: Layer, reorder: Any) -> Tensor:
        heads = weight.unflatten(0, (layer.attention.heads, -1))  # [heads, nope_dim + rope_dim, inputs]
        still, rotary = heads.split([layer.attention.nope_dim, layer.attention.rope_dim], 1)
        return torch.cat((still, reorder(rotary)), 1).flatten(0, 1)

    return via(
        f"{_OURS}.{ours}.weight",
        f"{_THEIRS}.{theirs}.weight",
        lambda weight, layer: turn(weight, layer, _to_halves),
        lambda weight, layer: turn(weight, layer, _to_neighbours),
    )


def _down() -> Rule:
    """The latent vector's rows, then the rotary key's."""

    def load(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        latent, rotary = tensors[0].split([layer.attention.kv_rank, layer.attention.rope_dim])
        return [latent.contiguous(), _to_halves(rotary)]

    def save(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [torch.cat((tensors[0], _to_neighbours(tensors[1])))]

    ours = (f"{_OURS}.kv_down.weight", f"{_OURS}.k_rope.weight")
    return Rule(ours, (f"{_THEIRS}.kv_a_proj_with_mqa.weight",), load, save)


def _up() -> Rule:
    """A head's key rows, then its value rows."""

    def load(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        heads = tensors[0].unflatten(0, (layer.attention.heads, -1))
        sizes = [layer.attention.nope_dim, layer.attention.value_dim]
        return [rows.flatten(0, 1) for rows in heads.split(sizes, 1)]

    def save(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        heads = [rows.unflatten(0, (layer.attention.heads, -1)) for rows in tensors]
        return [torch.cat(heads, 1).flatten(0, 1)]

    return Rule((f"{_OURS}.k_up.weight", f"{_OURS}.v_up.weight"), (f"{_THEIRS}.kv_b_proj.weight",), load, save)


def _unused(name: str, config: Model) -> bool:
    """Layers past the last are for multi-token prediction."""
    head, _, rest = name.partition("model.layers.")
    index = rest.partition(".")[0]
    return not head and index.isdigit() and int(index) >= config.layers


DEEPSEEK_V3 = Family(
    architecture="DeepseekV3ForCausalLM",
    rules=[
        *OUTSIDE,
        *PRE_NORMS,
        *FEEDFORWARD,
        _queries("q", "q_proj"),
        same(f"{_OURS}.q_down.weight", f"{_THEIRS}.q_a_proj.weight"),
        same(f"{_OURS}.q_norm.weight", f"{_THEIRS}.q_a_layernorm.weight"),
        _queries("q_up", "q_b_proj"),
        _down(),
        same(f"{_OURS}.kv_norm.weight", f"{_THEIRS}.kv_a_layernorm.weight"),
        _up(),
        same(f"{_OURS}.o.weight", f"{_THEIRS}.o_proj.weight"),
        router("model.layers.{}.mlp.gate"),
        same("layers.{}.feedforward.balance.bias", "model.layers.{}.mlp.gate.e_score_correction_bias"),
        *experts("model.layers.{}.mlp.experts"),
        *shared("model.layers.{}.mlp.shared_experts"),
    ],
    defaults={
        **LLAMA_DEFAULTS,
        **ROUTER_LOSS,
        "qk_head_dim": None,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rope_interleave": True,
        "first_k_dense_replace": 3,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "n_group": 8,
        "topk_group": 4,
        "num_nextn_predict_layers": 0,  # their tensors are left out
        "num_mtp_layers": 0,
        "auto_map": None,  # code of the release, which transformers' own has replaced
        "aux_loss_alpha": 0.0,  # training only
        "seq_aux": True,
        "ep_size": 1,
    },
    supported={
        "attention_bias": (False,),
        "moe_layer_freq": (1,),
        "scoring_func": ("sigmoid",),
        "topk_method": ("noaux_tc",),
    },
    unused=_unused,
    full=".balance.bias",
    read=_read,
    write=_write,
)
