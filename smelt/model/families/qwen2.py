"""Qwen2: Llama with biases on queries, keys and values, and sliding windows in some layers."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    LLAMA_DEFAULTS,
    LLAMA_RULES,
    QWEN_WINDOWS,
    read_llama,
    read_qwen_windows,
    write_llama,
    write_qwen_windows,
)
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    return Model.model_validate(read_llama(config, attention={"bias": "qkv"}, per_layer=read_qwen_windows(config)))


def _write(config: Model) -> dict[str, Any]:
    return {**write_llama(config), **write_qwen_windows(config)}


QWEN2 = Family(
    architecture="Qwen2ForCausalLM",
    rules=LLAMA_RULES,
    defaults={**LLAMA_DEFAULTS, **QWEN_WINDOWS, "num_key_value_heads": 32},
    read=_read,
    write=_write,
)
