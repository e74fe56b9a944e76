"""SmolLM3: Llama with rotary positions left out of some layers."""

from typing import Any

from smelt.errors import InputError
from smelt.model.families.family import LLAMA_NAMES, PLAIN_ONLY, Config, Family, read_common, write_common
from smelt.recipe.parts.position import Rope
from smelt.recipe.sections.model import Model


def _read(config: Config) -> Model:
    count = config["num_hidden_layers"]
    interval = config["no_rope_layer_interval"]
    flags = config["no_rope_layers"] or [int((index + 1) % interval != 0) for index in range(count)]
    if len(flags) < count:
        raise InputError(f"config.json: 'no_rope_layers' has {len(flags)} entries for {count} layers; give one a layer")
    if set(config.get("layer_types") or ()) - {"full_attention"}:
        raise InputError("config.json: 'layer_types' has other than 'full_attention'; use a checkpoint without it")
    without = [index for index in range(count) if not flags[index]]
    changes = [{"layers": slice, "position": {"kind": "none"}} for slice in _slices(without, count)]
    return Model.model_validate({**read_common(config), "per_layer": changes})


def _slices(chosen: list[int], count: int) -> list[str]:
    """`chosen` layers as one slice where they are evenly spaced to the end, else one by one."""
    if len(chosen) > 1 and chosen == list(range(count))[chosen[0] :: chosen[1] - chosen[0]]:
        return [f"{chosen[0]}::{chosen[1] - chosen[0]}"]
    return [str(index) for index in chosen]


def _write(config: Model) -> dict[str, Any]:
    rope = [isinstance(config.layer(index).position, Rope) for index in range(config.layers)]
    return {
        **write_common(config),
        "no_rope_layers": [int(rotary) for rotary in rope],  # 1: the layer has rotary positions
        "layer_types": ["full_attention"] * config.layers,
        "use_sliding_window": False,
        "sliding_window": None,
    }


SMOLLM3 = Family(
    architecture="SmolLM3ForCausalLM",
    names=LLAMA_NAMES,
    defaults={
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "rope_theta": 2_000_000.0,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
    },
    supported={**PLAIN_ONLY, "use_sliding_window": (False, None)},
    read=_read,
    write=_write,
)
