"""Qwen3: Llama with normalised queries and keys, and sliding windows in some layers."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    LLAMA_DEFAULTS,
    LLAMA_RULES,
    QK_NORM,
    QWEN_WINDOWS,
    bias_of,
    read_llama,
    read_qwen_windows,
    write_llama,
    write_qwen_windows,
)
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    attention = {"bias": "all" if config["attention_bias"] else "none", "qk_norm": "head"}
    return Model.model_validate(read_llama(config, attention=attention, per_layer=read_qwen_windows(config)))


def _write(config: Model) -> dict[str, Any]:
    bias = bias_of(config.each_layer[0].attention)
    return {**write_llama(config), **write_qwen_windows(config), "attention_bias": bias}


QWEN3 = Family(
    architecture="Qwen3ForCausalLM",
    rules=[*LLAMA_RULES, *QK_NORM],
    defaults={
        **LLAMA_DEFAULTS,
        **QWEN_WINDOWS,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "attention_bias": False,
    },
    read=_read,
    write=_write,
)
