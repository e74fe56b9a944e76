"""OLMo 2: sublayers normalised after, not before; queries and keys normalised over all heads together."""

from typing import Any

from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    ATTENTION,
    FEEDFORWARD,
    LLAMA_DEFAULTS,
    OUTSIDE,
    QK_NORM,
    bias_of,
    read_llama,
    write_llama,
)
from smelt.model.families.rules import same
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    attention = {"bias": "all" if config["attention_bias"] else "none", "qk_norm": "full"}
    return Model.model_validate(read_llama(config, attention=attention, norm={"placement": "post"}))


def _write(config: Model) -> dict[str, Any]:
    return {**write_llama(config), "attention_bias": bias_of(config.each_layer[0].attention)}


OLMO2 = Family(
    architecture="Olmo2ForCausalLM",
    rules=[
        *OUTSIDE,
        same("layers.{}.attention_norm.after.weight", "model.layers.{}.post_attention_layernorm.weight"),
        same("layers.{}.feedforward_norm.after.weight", "model.layers.{}.post_feedforward_layernorm.weight"),
        *ATTENTION,
        *QK_NORM,
        *FEEDFORWARD,
    ],
    defaults={**LLAMA_DEFAULTS, "rms_norm_eps": 1e-5, "attention_bias": False},
    read=_read,
    write=_write,
)
