"""Qwen3-Next: Gated DeltaNet, gated attention in some layers, zero-centred norms, experts beside a gated shared one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    ATTENTION,
    FEEDFORWARD,
    LLAMA_DEFAULTS,
    OUTSIDE,
    PRE_NORMS,
    QK_NORM,
    check_types,
    from_layers,
    read_choice,
    read_llama,
    write_common,
)
from smelt.model.families.hybrid import convolution, first_mixer
from smelt.model.families.rules import Rule, for_mixer, same
from smelt.model.families.sparse import (
    ROUTER_LOSS,
    SILU,
    experts,
    first_mixture,
    read_qwen_experts,
    router,
    shared,
    shared_width,
    write_qwen_experts,
)
from smelt.recipe.parts.attention import GroupedQuery
from smelt.recipe.parts.deltanet import GatedDeltaNet
from smelt.recipe.sections.model import Layer, Model

_OURS, _DELTA = "layers.{}.attention", "model.layers.{}.linear_attn"


def _read(config: Config) -> Model:
    read_choice(config, "hidden_act", SILU)
    count, interval = config["num_hidden_layers"], config["full_attention_interval"]
    types = config["layer_types"] or [
        "linear_attention" if (index + 1) % interval else "full_attention" for index in range(count)
    ]
    check_types(config, types, "linear_attention", "full_attention")
    common = read_llama(config, partial=True)
    mixers = {
        "linear_attention": _read_delta(config),
        "full_attention": {"kind": "gqa", **common["attention"], "qk_norm": "head", "gate": "channel"},
    }
    networks = read_qwen_experts(config, shared_width=config["shared_expert_intermediate_size"], shared_gate=True)
    section = {
        **common,
        **from_layers(
            [{"attention": mixers[kind], "feedforward": network} for kind, network in zip(types, networks, strict=True)]
        ),
        "norm": {"eps": config["rms_norm_eps"], "zero_centered": True},
    }
    return Model.model_validate(section)


def _read_delta(config: Config) -> dict[str, Any]:
    return {
        "kind": "gated_deltanet",
        "key_heads": config["linear_num_key_heads"],
        "value_heads": config["linear_num_value_heads"],
        "key_dim": config["linear_key_head_dim"],
        "value_dim": config["linear_value_head_dim"],
        "conv": config["linear_conv_kernel_dim"],
    }


def _write(config: Model) -> dict[str, Any]:
    types = {"gated_deltanet": "linear_attention", "gqa": "full_attention"}
    attention = first_mixer(config, "gqa") or GroupedQuery(heads=1, kv_heads=1, head_dim=8)
    mixture, fields = first_mixture(config), write_common(config, attention)
    fields["rope_parameters"].setdefault("partial_rotary_factor", 1.0)  # or it would be a quarter
    return {
        **fields,
        "layer_types": [types.get(layer.attention.kind, "full_attention") for layer in config.each_layer],
        "attention_bias": False,
        **_write_delta(first_mixer(config, "gated_deltanet")),
        **write_qwen_experts(config),
        **({"shared_expert_intermediate_size": shared_width(mixture)} if mixture else {}),
        "hidden_act": "silu",
    }


def _write_delta(mixer: GatedDeltaNet | None) -> dict[str, Any]:
    if mixer is None:
        return {}
    return {
        "linear_num_key_heads": mixer.key_heads,
        "linear_num_value_heads": mixer.value_heads,
        "linear_key_head_dim": mixer.key_dim,
        "linear_value_head_dim": mixer.value_dim,
        "linear_conv_kernel_dim": mixer.conv,
    }


def _query_and_gate() -> Rule:
    """A head's query rows, then its gate's."""

    def load(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        heads = tensors[0].unflatten(0, (layer.attention.heads, 2, -1))  # [heads, 2, head_dim, inputs]
        return [rows.flatten(0, 1) for rows in heads.unbind(1)]

    def save(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        heads = [rows.unflatten(0, (layer.attention.heads, -1)) for rows in tensors]
        return [torch.stack(heads, 1).flatten(0, 2)]

    return Rule((f"{_OURS}.q.weight", f"{_OURS}.gate.weight"), ("model.layers.{}.self_attn.q_proj.weight",), load, save)


def _by_key_head(ours: Sequence[str], theirs: str, sizes: Callable[[GatedDeltaNet], Sequence[int]]) -> Rule:
    """For each key head in turn, its rows of each of our matrices: `sizes` says how many."""

    def load(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        heads = tensors[0].unflatten(0, (layer.attention.key_heads, -1))
        return [rows.flatten(0, 1) for rows in heads.split(list(sizes(layer.attention)), 1)]

    def save(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        heads = [rows.unflatten(0, (layer.attention.key_heads, -1)) for rows in tensors]
        return [torch.cat(heads, 1).flatten(0, 1)]

    return Rule(tuple(f"{_OURS}.{name}.weight" for name in ours), (f"{_DELTA}.{theirs}.weight",), load, save)


def _four(mixer: GatedDeltaNet) -> list[int]:
    values = mixer.values // mixer.key_heads
    return [mixer.key_dim, mixer.key_dim, values, values]


def _two(mixer: GatedDeltaNet) -> list[int]:
    return [mixer.value_heads // mixer.key_heads] * 2


def _unused(name: str, config: Model) -> bool:
    """Layers of multi-token prediction."""
    return name.startswith("mtp.")


_DELTA_RULES = [
    _by_key_head(("q", "k", "v", "gate"), "in_proj_qkvz", _four),
    _by_key_head(("b", "a"), "in_proj_ba", _two),
    convolution(_OURS, _DELTA),
    same(f"{_OURS}.a_log", f"{_DELTA}.A_log"),
    same(f"{_OURS}.dt_bias", f"{_DELTA}.dt_bias"),
    same(f"{_OURS}.norm.weight", f"{_DELTA}.norm.weight"),
    same(f"{_OURS}.out.weight", f"{_DELTA}.out_proj.weight"),
]

QWEN3_NEXT = Family(
    architecture="Qwen3NextForCausalLM",
    rules=[
        *OUTSIDE,
        *PRE_NORMS,
        *for_mixer("gqa", [_query_and_gate(), *ATTENTION[2:], *QK_NORM]),
        *for_mixer("gated_deltanet", _DELTA_RULES),
        *FEEDFORWARD,
        router("model.layers.{}.mlp.gate"),
        *experts("model.layers.{}.mlp.experts"),
        *shared("model.layers.{}.mlp.shared_expert"),
        same("layers.{}.feedforward.shared_gate.weight", "model.layers.{}.mlp.shared_expert_gate.weight"),
    ],
    defaults={
        **LLAMA_DEFAULTS,
        **ROUTER_LOSS,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "partial_rotary_factor": 0.25,
        "layer_types": None,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "num_experts": 512,
        "num_local_experts": None,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
    },
    supported={"attention_bias": (False,)},
    unused=_unused,
    read=_read,
    write=_write,
)
