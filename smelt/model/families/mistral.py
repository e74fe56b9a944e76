"""Mistral: Llama with a sliding window in every layer."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import LLAMA_DEFAULTS, LLAMA_RULES, read_llama, write_llama
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    return Model.model_validate(read_llama(config, attention={"window": config["sliding_window"]}))


def _write(config: Model) -> dict[str, Any]:
    return {**write_llama(config), "sliding_window": config.each_layer[0].attention.window}


MISTRAL = Family(
    architecture="MistralForCausalLM",
    rules=LLAMA_RULES,
    defaults={**LLAMA_DEFAULTS, "num_key_value_heads": 8, "sliding_window": 4096},
    read=_read,
    write=_write,
)
