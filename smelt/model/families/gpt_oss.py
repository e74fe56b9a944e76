"""gpt-oss: learned sinks, windows in every other layer, biases, and experts with a clamped activation."""

from typing import Any

import torch
from torch import Tensor

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    ATTENTION,
    LLAMA_DEFAULTS,
    OUTSIDE,
    PRE_NORMS,
    bias_of,
    part,
    read_choice,
    read_llama,
    read_windows,
    write_common,
    write_windows,
)
from smelt.model.families.rules import Rule, same
from smelt.model.families.sparse import ROUTER_LOSS, SILU, number_of_experts, require, router
from smelt.recipe.sections.model import Layer, Model

_EXPERTS = "layers.{}.feedforward.experts"
_STACKS = "model.layers.{}.mlp.experts"


def _read(config: Config) -> Model:
    require(config, "experts_per_token", None, config["num_experts_per_tok"])
    read_choice(config, "hidden_act", SILU)
    types = config["layer_types"] or [
        "full_attention" if index % 2 else "sliding_attention" for index in range(config["num_hidden_layers"])
    ]
    mixture = {
        "kind": "moe",
        "experts": number_of_experts(config),
        "top_k": config["num_experts_per_tok"],
        "width": config["intermediate_size"],
        "activation": "clamped_swiglu",
        "bias": True,
    }
    section = read_llama(
        config,
        attention={"sinks": True, "bias": "all" if config["attention_bias"] else "none"},
        per_layer=read_windows(config, types),
    )
    return Model.model_validate({**section, "feedforward": mixture})


def _write(config: Model) -> dict[str, Any]:
    attention = part(config.each_layer[0].attention, "attention", "gqa")
    mixture = part(config.each_layer[0].feedforward, "feedforward", "moe")
    windows = write_windows(config)
    return {
        **write_common(config, attention),
        **windows,
        "sliding_window": windows["sliding_window"] or 128,  # transformers wants a number even where no layer slides
        "hidden_act": "silu",
        "attention_bias": bias_of(attention),
        "intermediate_size": mixture.width,
        "num_local_experts": mixture.experts,
        "num_experts_per_tok": mixture.top_k,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    }


def _gate_and_up(suffix: str) -> Rule:
    """One stored stack, whose last axis alternates between gate and up: `[inputs, 2 width]` an expert, `[2 width]` of
    biases."""

    def load(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [part.contiguous() for part in tensors[0].mT.unflatten(0, (-1, 2)).unbind(1)]

    def save(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [torch.stack(tensors, 1).flatten(0, 1).mT.contiguous()]

    def load_bias(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [part.contiguous() for part in tensors[0].unflatten(0, (-1, 2)).unbind(1)]

    def save_bias(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [torch.stack(tensors, 1).flatten()]

    ours = (f"{_EXPERTS}.gate{suffix}", f"{_EXPERTS}.up{suffix}")
    ways = (load_bias, save_bias) if suffix else (load, save)
    return Rule(ours, (f"{_STACKS}.gate_up_proj{suffix}[{{e}}]",), *ways)


def _down() -> Rule:
    def turned(tensors: list[Tensor], layer: Layer) -> list[Tensor]:
        return [tensors[0].mT.contiguous()]

    return Rule((f"{_EXPERTS}.down",), (f"{_STACKS}.down_proj[{{e}}]",), turned, turned)


GPT_OSS = Family(
    architecture="GptOssForCausalLM",
    rules=[
        *OUTSIDE,
        *PRE_NORMS,
        *ATTENTION,
        same("layers.{}.attention.sinks", "model.layers.{}.self_attn.sinks"),
        router("model.layers.{}.mlp.router"),
        same("layers.{}.feedforward.router.bias", "model.layers.{}.mlp.router.bias"),
        _gate_and_up(""),
        _gate_and_up("_bias"),
        _down(),
        same(f"{_EXPERTS}.down_bias", f"{_STACKS}.down_proj_bias"),
    ],
    defaults={
        **LLAMA_DEFAULTS,
        **ROUTER_LOSS,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150_000.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
        "attention_bias": True,
        "layer_types": None,
        "sliding_window": 128,
        "num_experts": None,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "experts_per_token": None,
        "initial_context_length": None,  # the same as the scaling's original_max_position_embeddings
    },
    supported={"swiglu_alpha": (1.702,), "swiglu_limit": (7.0,)},
    read=_read,
    write=_write,
)
