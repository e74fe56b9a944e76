"""Llama: rotary positions in every layer."""

from typing import Any

from smelt.model.families.family import LLAMA_NAMES, PLAIN_ONLY, Config, Family, read_common, write_common
from smelt.recipe.parts.position import Rope
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    return Model.model_validate(read_common(config))


def _write(config: Model) -> dict[str, Any]:
    if not all(isinstance(config.layer(index).position, Rope) for index in range(config.layers)):
        raise ValueError("some of its layers have no rotary positions")
    if config.hidden % config.layer(0).attention.heads:
        raise ValueError("its hidden size is not a multiple of its heads")
    return write_common(config)


LLAMA = Family(
    architecture="LlamaForCausalLM",
    names=LLAMA_NAMES,
    defaults={
        "num_key_value_heads": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "rope_theta": 10_000.0,
    },
    supported=PLAIN_ONLY,
    read=_read,
    write=_write,
)
