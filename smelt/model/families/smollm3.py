"""SmolLM3: Llama with rotary positions left out of some layers."""

from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import Config, Family
from smelt.model.families.fields import (
    LLAMA_DEFAULTS,
    LLAMA_RULES,
    bias_of,
    has_rope,
    per_layer,
    read_llama,
    read_windows,
    write_llama,
    write_windows,
)
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    count = config["num_hidden_layers"]
    interval = config["no_rope_layer_interval"]
    rotary = config["no_rope_layers"] or [(index + 1) % interval != 0 for index in range(count)]  # 1: has positions
    if len(rotary) < count:
        raise InputError(
            f"config.json: 'no_rope_layers' has {len(rotary)} entries for {count} layers; give one a layer"
        )
    sliding, types = config["use_sliding_window"], config["layer_types"]
    if types is None:
        windowed = sliding and config["sliding_window"]
        types = ["full_attention" if rotary[index] or not windowed else "sliding_attention" for index in range(count)]
    if not sliding and "sliding_attention" in types:
        raise InputError("config.json: 'layer_types' slides but 'use_sliding_window' is off; correct one")
    without = per_layer([{} if rotary[index] else {"position": {"kind": "none"}} for index in range(count)])
    section = read_llama(
        config,
        attention={"bias": "all" if config["attention_bias"] else "none"},
        feedforward={"bias": config["mlp_bias"]},
        per_layer=[*without, *read_windows(config, types)],
    )
    return Model.model_validate(section)


def _write(config: Model) -> dict[str, Any]:
    windows = write_windows(config)
    return {
        **write_llama(config),
        **windows,
        "no_rope_layers": [int(rotary) for rotary in has_rope(config)],
        "use_sliding_window": windows["sliding_window"] is not None,
        "attention_bias": bias_of(config.each_layer[0].attention),
        "mlp_bias": config.each_layer[0].feedforward.bias,
    }


SMOLLM3 = Family(
    architecture="SmolLM3ForCausalLM",
    rules=LLAMA_RULES,
    defaults={
        **LLAMA_DEFAULTS,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_theta": 2_000_000.0,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
        "layer_types": None,
        "use_sliding_window": False,
        "sliding_window": None,
        "attention_bias": False,
        "mlp_bias": False,
    },
    read=_read,
    write=_write,
)
