"""Llama: rotary positions in every layer."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import LLAMA_DEFAULTS, LLAMA_RULES, bias_of, read_llama, write_llama
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    bias = {"bias": "all" if config["attention_bias"] else "none"}
    return Model.model_validate(read_llama(config, attention=bias, feedforward={"bias": config["mlp_bias"]}))


def _write(config: Model) -> dict[str, Any]:
    fields = write_llama(config)
    layer = config.each_layer[0]
    if config.hidden % layer.attention.heads:
        raise ValueError("its hidden size is not a multiple of its heads")
    return {**fields, "attention_bias": bias_of(layer.attention), "mlp_bias": layer.feedforward.bias}


LLAMA = Family(
    architecture="LlamaForCausalLM",
    rules=LLAMA_RULES,
    defaults={**LLAMA_DEFAULTS, "attention_bias": False, "mlp_bias": False},
    read=_read,
    write=_write,
)
