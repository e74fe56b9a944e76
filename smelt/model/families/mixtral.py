"""Mixtral: Mistral with experts in every layer."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    ATTENTION,
    LLAMA_DEFAULTS,
    OUTSIDE,
    PRE_NORMS,
    part,
    read_choice,
    read_llama,
    write_common,
)
from smelt.model.families.sparse import ROUTER_LOSS, SILU, experts, number_of_experts, router
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    read_choice(config, "hidden_act", SILU)
    mixture = {
        "kind": "moe",
        "experts": number_of_experts(config),
        "top_k": config["num_experts_per_tok"],
        "width": config["intermediate_size"],
    }
    section = read_llama(config, attention={"window": config["sliding_window"]})
    return Model.model_validate({**section, "feedforward": mixture})


def _write(config: Model) -> dict[str, Any]:
    mixture = part(config.each_layer[0].feedforward, "feedforward", "moe")
    attention = part(config.each_layer[0].attention, "attention", "gqa")
    return {
        **write_common(config, attention),
        "intermediate_size": mixture.width,
        "hidden_act": "silu",
        "sliding_window": attention.window,
        "num_local_experts": mixture.experts,
        "num_experts_per_tok": mixture.top_k,
        "router_jitter_noise": 0.0,
    }


MIXTRAL = Family(
    architecture="MixtralForCausalLM",
    rules=[
        *OUTSIDE,
        *PRE_NORMS,
        *ATTENTION,
        router("model.layers.{}.block_sparse_moe.gate"),
        *experts("model.layers.{}.block_sparse_moe.experts", gate="w1", up="w3", down="w2"),
    ],
    defaults={
        **LLAMA_DEFAULTS,
        **ROUTER_LOSS,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": None,
        "num_experts": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    supported={"router_jitter_noise": (0.0,)},
    read=_read,
    write=_write,
)
