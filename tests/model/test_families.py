"""The dense families, both ways, with transformers itself as the judge: random tiny configs of each."""

from typing import Any

import pytest
from family_checks import check_family, known_fields
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from smelt.model.families.table import FAMILIES

EXAMPLES = settings(max_examples=4)
SEEDS = st.integers(0, 99)


@st.composite
def sizes(draw: st.DrawFn, layers: int = 3) -> dict[str, Any]:
    """What every config has: heads of any grouping, a head that is not hidden / heads, tied or untied embeddings."""
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    heads = kv_heads * group
    return {
        "vocab_size": 61,
        "hidden_size": heads * draw(st.sampled_from([8, 12])),
        "intermediate_size": draw(st.integers(9, 40)),
        "num_hidden_layers": draw(st.integers(1, layers)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(2, 6)),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


@st.composite
def ropes(draw: st.DrawFn) -> dict[str, Any]:
    """Rotary positions with a random base and any scaling, the trained length short enough to matter."""
    theta, factor = draw(st.sampled_from([50.0, 1e4])), draw(st.sampled_from([1.5, 8.0]))
    scaled = {"rope_theta": theta, "factor": factor, "original_max_position_embeddings": draw(st.sampled_from([8, 32]))}
    return draw(
        st.sampled_from(
            [
                {"rope_type": "default", "rope_theta": theta},
                {"rope_type": "linear", "rope_theta": theta, "factor": factor},
                {"rope_type": "llama3", **scaled, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
                {"rope_type": "yarn", **scaled},
                {"rope_type": "yarn", **scaled, "beta_fast": 4.0, "attention_factor": 1.3, "truncate": False},
                {"rope_type": "yarn", **scaled, "mscale": 0.7, "mscale_all_dim": 1.0},
            ]
        )
    )


truncated = ropes().filter(lambda rope: rope.get("truncate", True))


def layer_types(count: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["full_attention", "sliding_attention"]), min_size=count, max_size=count)


@EXAMPLES
@given(size=sizes(), rope=ropes(), bias=st.booleans(), mlp_bias=st.booleans(), seed=SEEDS)
def test_llama(size: dict[str, Any], rope: dict[str, Any], bias: bool, mlp_bias: bool, seed: int) -> None:
    """ARCH-27"""
    check_family(LlamaConfig(**size, rope_parameters=rope, attention_bias=bias, mlp_bias=mlp_bias), seed)


@EXAMPLES
@given(data=st.data(), size=sizes(layers=5), rope=ropes(), sliding=st.booleans(), bias=st.booleans(), seed=SEEDS)
def test_smollm3(
    data: st.DataObject, size: dict[str, Any], rope: dict[str, Any], sliding: bool, bias: bool, seed: int
) -> None:
    """ARCH-27: positions in any of the layers, given as a list or as an interval."""
    count = size["num_hidden_layers"]
    positions = data.draw(st.none() | st.lists(st.integers(0, 1), min_size=count, max_size=count))
    config = SmolLM3Config(
        **size,
        rope_parameters=rope,
        attention_bias=bias,
        no_rope_layers=positions,
        no_rope_layer_interval=2,
        use_sliding_window=sliding,
        sliding_window=5,
    )
    check_family(config, seed)


@EXAMPLES
@given(data=st.data(), size=sizes(), rope=ropes(), sliding=st.booleans(), seed=SEEDS)
def test_qwen2(data: st.DataObject, size: dict[str, Any], rope: dict[str, Any], sliding: bool, seed: int) -> None:
    """ARCH-27: biases on queries, keys and values; windows from some layer on."""
    first = data.draw(st.integers(0, size["num_hidden_layers"]))
    windows = {"use_sliding_window": sliding, "sliding_window": 4, "max_window_layers": first}
    check_family(Qwen2Config(**size, rope_parameters=rope, **windows), seed)


@EXAMPLES
@given(data=st.data(), size=sizes(), rope=ropes(), bias=st.booleans(), seed=SEEDS)
def test_qwen3(data: st.DataObject, size: dict[str, Any], rope: dict[str, Any], bias: bool, seed: int) -> None:
    """ARCH-27: each head's queries and keys normalised; windows in any layers."""
    types = data.draw(layer_types(size["num_hidden_layers"]))
    windows = {"use_sliding_window": True, "sliding_window": 3, "layer_types": types}
    check_family(Qwen3Config(**size, rope_parameters=rope, attention_bias=bias, **windows), seed)


@EXAMPLES
@given(size=sizes(), rope=ropes(), window=st.sampled_from([None, 2, 6]), seed=SEEDS)
def test_mistral(size: dict[str, Any], rope: dict[str, Any], window: int | None, seed: int) -> None:
    """ARCH-27: one window for all layers, or none."""
    check_family(MistralConfig(**size, rope_parameters=rope, sliding_window=window), seed)


@EXAMPLES
@given(size=sizes(), rope=ropes(), bias=st.booleans(), seed=SEEDS)
def test_olmo2(size: dict[str, Any], rope: dict[str, Any], bias: bool, seed: int) -> None:
    """ARCH-27: norms after the sublayers, all heads normalised together."""
    check_family(Olmo2Config(**size, rope_parameters=rope, attention_bias=bias), seed)


@EXAMPLES
@given(data=st.data(), size=sizes(), near=truncated, far=truncated, cap=st.sampled_from([None, 2.0]), seed=SEEDS)
def test_gemma3(
    data: st.DataObject,
    size: dict[str, Any],
    near: dict[str, Any],
    far: dict[str, Any],
    cap: float | None,
    seed: int,
) -> None:
    """ARCH-27: sandwich norms around 1 + weight, GeGLU, local and global layers with rotary positions of their own."""
    config = Gemma3TextConfig(
        **size,
        rope_parameters={"sliding_attention": near, "full_attention": far},
        layer_types=data.draw(layer_types(size["num_hidden_layers"])),
        sliding_window=4,
        query_pre_attn_scalar=data.draw(st.sampled_from([7, 24])),
        final_logit_softcapping=cap,
        attention_bias=data.draw(st.booleans()),
    )
    check_family(config, seed)


@pytest.mark.parametrize(
    "config",
    [LlamaConfig, SmolLM3Config, MistralConfig, Qwen2Config, Qwen3Config, Olmo2Config, Gemma3TextConfig],
    ids=lambda config: config.model_type,
)
def test_every_field_of_the_family_is_known(config: type[PreTrainedConfig]) -> None:
    """So none is passed over for being off where transformers has it on by default."""
    unknown = set(config().to_dict()) - known_fields(FAMILIES[config.model_type])
    assert not unknown
