"""Qwen3-MoE: Qwen3 with experts in all layers, every few, or all but some."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    ATTENTION,
    FEEDFORWARD,
    LLAMA_DEFAULTS,
    OUTSIDE,
    PRE_NORMS,
    QK_NORM,
    bias_of,
    from_layers,
    part,
    read_choice,
    read_llama,
    write_common,
)
from smelt.model.families.sparse import (
    ROUTER_LOSS,
    SILU,
    experts,
    read_qwen_experts,
    router,
    write_qwen_experts,
)
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    read_choice(config, "hidden_act", SILU)
    attention = {
        "bias": "all" if config["attention_bias"] else "none",
        "qk_norm": "head",
        "window": config["sliding_window"] if config["use_sliding_window"] else None,
    }
    networks = from_layers([{"feedforward": network} for network in read_qwen_experts(config)])
    return Model.model_validate({**read_llama(config, attention=attention), **networks})


def _write(config: Model) -> dict[str, Any]:
    attention = part(config.each_layer[0].attention, "attention", "gqa")
    return {
        **write_common(config, attention),
        **write_qwen_experts(config),
        "hidden_act": "silu",
        "attention_bias": bias_of(attention),
        "use_sliding_window": attention.window is not None,
        "sliding_window": attention.window,
    }


QWEN3_MOE = Family(
    architecture="Qwen3MoeForCausalLM",
    rules=[
        *OUTSIDE,
        *PRE_NORMS,
        *ATTENTION,
        *QK_NORM,
        *FEEDFORWARD,
        router("model.layers.{}.mlp.gate"),
        *experts("model.layers.{}.mlp.experts"),
    ],
    defaults={
        **LLAMA_DEFAULTS,
        **ROUTER_LOSS,
        "num_key_value_heads": 4,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": None,  # transformers ignores it here
        "num_experts": 128,
        "num_local_experts": None,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
    },
    read=_read,
    write=_write,
)
