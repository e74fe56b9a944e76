"""Families with experts: transformers against ours, from the files it saves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from family_checks import check_family, known_fields, random_peer, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import VOCAB, decoder, section, tokens
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)

from smelt.errors import InputError
from smelt.files import read_json, write_json
from smelt.model.families import export_model, import_model
from smelt.model.families.export import export_weights
from smelt.model.families.importer import import_weights
from smelt.model.families.table import FAMILIES

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 100.0}


@st.composite
def attention(draw: st.DrawFn) -> dict[str, Any]:
    """Fields that these families spell alike."""
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return {
        "vocab_size": VOCAB,
        "hidden_size": draw(st.sampled_from([16, 24])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 5)),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "rope_theta": draw(st.sampled_from([100.0, 1e4, 2e6])),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }


@st.composite
def chosen(draw: st.DrawFn, name: str) -> dict[str, int]:
    """How many experts, and how many a token meets."""
    experts = draw(st.integers(2, 6))
    return {name: experts, "num_experts_per_tok": draw(st.integers(1, experts))}


@settings(max_examples=3)
@given(data=st.data(), base=attention(), experts=chosen("num_experts"), seed=st.integers(0, 99))
def test_qwen3_moe(data: st.DataObject, base: dict[str, Any], experts: dict[str, int], seed: int) -> None:
    """ARCH-27: experts in all layers, every few, or all but some; QK-norm, biases, windows."""
    layers = base["num_hidden_layers"]
    config = Qwen3MoeConfig(
        **base,
        **experts,
        intermediate_size=20,
        moe_intermediate_size=4 * data.draw(st.integers(1, 3)),
        norm_topk_prob=data.draw(st.booleans()),
        decoder_sparse_step=data.draw(st.integers(1, 2)),
        mlp_only_layers=data.draw(st.lists(st.integers(0, layers - 1), unique=True, max_size=2)),
        attention_bias=data.draw(st.booleans()),
        use_sliding_window=data.draw(st.booleans()),
        sliding_window=data.draw(st.integers(2, 6)),
    )
    check_family(config, seed)


@settings(max_examples=2)
@given(window=st.none() | st.integers(2, 6), base=attention(), experts=chosen("num_local_experts"), seed=st.integers())
def test_mixtral(window: int | None, base: dict[str, Any], experts: dict[str, int], seed: int) -> None:
    """ARCH-27"""
    check_family(MixtralConfig(**base, **experts, intermediate_size=8, sliding_window=window), seed)


@settings(max_examples=4)
@given(data=st.data(), base=attention(), seed=st.integers(0, 99))
def test_deepseek_v3(data: st.DataObject, base: dict[str, Any], seed: int) -> None:
    """ARCH-27: latent attention with and without compressed queries, YaRN with its two scales, groups of experts."""
    groups = data.draw(st.integers(1, 3))
    experts, kept = groups * data.draw(st.integers(2, 3)), data.draw(st.integers(1, groups))
    scales = data.draw(st.sampled_from([{}, {"mscale": 1.0, "mscale_all_dim": 1.0}, {"mscale_all_dim": 0.7}]))
    config = DeepseekV3Config(
        **{
            name: value for name, value in base.items() if name not in ("head_dim", "rope_theta", "num_key_value_heads")
        },
        num_key_value_heads=base["num_attention_heads"],
        intermediate_size=20,
        moe_intermediate_size=4 * data.draw(st.integers(1, 3)),
        n_routed_experts=experts,
        n_shared_experts=data.draw(st.integers(1, 2)),
        n_group=groups,
        topk_group=kept,
        num_experts_per_tok=data.draw(st.integers(1, experts // groups * kept)),
        first_k_dense_replace=data.draw(st.integers(0, base["num_hidden_layers"])),
        norm_topk_prob=data.draw(st.booleans()),
        routed_scaling_factor=data.draw(st.sampled_from([1.0, 2.5])),
        q_lora_rank=data.draw(st.none() | st.integers(3, 8)),
        kv_lora_rank=data.draw(st.integers(3, 8)),
        qk_nope_head_dim=data.draw(st.integers(1, 5)),
        qk_rope_head_dim=2 * data.draw(st.integers(1, 4)),
        v_head_dim=data.draw(st.integers(1, 6)),
        rope_parameters=data.draw(st.sampled_from([{**YARN, **scales}, {"rope_type": "default", "rope_theta": 1e4}])),
    )
    check_family(config, seed)


@settings(max_examples=3)
@given(data=st.data(), base=attention(), experts=chosen("num_local_experts"), seed=st.integers(0, 99))
def test_gpt_oss(data: st.DataObject, base: dict[str, Any], experts: dict[str, int], seed: int) -> None:
    """ARCH-27: sinks, biases everywhere, windows in some layers, clamped experts in interleaved stacks."""
    types, layers = st.sampled_from(["sliding_attention", "full_attention"]), base["num_hidden_layers"]
    config = GptOssConfig(
        **{name: value for name, value in base.items() if name != "rope_theta"},
        **experts,
        intermediate_size=4 * data.draw(st.integers(1, 3)),
        sliding_window=data.draw(st.integers(2, 6)),
        layer_types=data.draw(st.none() | st.lists(types, min_size=layers, max_size=layers)),
        attention_bias=data.draw(st.booleans()),
        rope_parameters={**YARN, "truncate": False, "beta_fast": 4.0},
    )
    check_family(config, seed)


SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
LATENT = {"q_lora_rank": 4, "kv_lora_rank": 4, "qk_nope_head_dim": 2, "qk_rope_head_dim": 4, "v_head_dim": 4}
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen3_moe": Qwen3MoeConfig(**SMALL, moe_intermediate_size=4, num_experts=4, num_experts_per_tok=2),
    "mixtral": MixtralConfig(**SMALL, intermediate_size=4, num_local_experts=4),
    "deepseek_v3": DeepseekV3Config(
        **SMALL,
        **LATENT,
        intermediate_size=8,
        moe_intermediate_size=4,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
    ),
    "gpt_oss": GptOssConfig(**SMALL, intermediate_size=4, num_local_experts=4, num_experts_per_tok=2),
}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_field_of_the_family_is_known(family: str) -> None:
    """So none is passed over for being off where transformers has it on by default."""
    assert not set(CONFIGS[family].to_dict()) - known_fields(FAMILIES[family])


@pytest.mark.parametrize(
    ("family", "fields", "named"),
    [
        ("qwen3_moe", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen3_moe", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ("qwen3_moe", {"attention_dropout": 0.1}, "attention_dropout"),
        ("mixtral", {"router_jitter_noise": 0.1}, "router_jitter_noise"),
        ("mixtral", {"shared_expert_intermediate_size": 8}, "shared_expert_intermediate_size"),
        ("deepseek_v3", {"rope_interleave": False}, "rope_interleave"),
        ("deepseek_v3", {"attention_bias": True}, "attention_bias"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func"),
        ("deepseek_v3", {"topk_method": "group_limited_greedy"}, "topk_method"),
        ("deepseek_v3", {"moe_layer_freq": 2}, "moe_layer_freq"),
        ("deepseek_v3", {"num_key_value_heads": 1}, "num_key_value_heads"),
        ("deepseek_v3", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config.*bfloat16"),
        ("gpt_oss", {"swiglu_limit": 8.0}, "swiglu_limit"),
        ("gpt_oss", {"swiglu_alpha": 1.0}, "swiglu_alpha"),
        ("gpt_oss", {"experts_per_token": 1}, "experts_per_token"),
        ("gpt_oss", {"layer_types": ["chunked_attention"] * 2}, "layer_types"),
        ("gpt_oss", {"quantization_config": {"quant_method": "mxfp4"}}, "quantization_config.*bfloat16"),
    ],
)
def test_a_field_that_would_change_the_maths_is_refused_by_name(
    tmp_path: Path, family: str, fields: dict[str, Any], named: str
) -> None:
    write_json(tmp_path / "config.json", {**CONFIGS[family].to_dict(), **fields})
    with pytest.raises(InputError, match=named) as error:
        import_model(tmp_path)
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


def test_layers_of_multi_token_prediction_are_left_out_with_a_word(tmp_path: Path) -> None:
    random_peer(CONFIGS["deepseek_v3"], 0).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "model.layers.2.eh_proj.weight": torch.zeros(2)}, path)
    said: list[str] = []
    assert import_model(tmp_path, warn=said.append).config.layers == 2
    [word] = said
    assert "multi-token" in word and "model.layers.2.eh_proj.weight" in word


def test_in_bfloat16_the_bias_of_the_choice_stays_float32(tmp_path: Path) -> None:
    random_peer(CONFIGS["deepseek_v3"], 0).save_pretrained(tmp_path / "full")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "full", dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "theirs")
    import_weights(tmp_path / "theirs", tmp_path / "ours")
    export_weights(tmp_path / "ours", tmp_path / "kept")
    export_model(import_model(tmp_path / "theirs"), tmp_path / "masters", context=64, family="deepseek_v3")
    wanted = stored(tmp_path / "theirs")
    assert {tensor.dtype for tensor in wanted.values()} == {torch.bfloat16, torch.float32}
    for folder in ("kept", "masters"):
        found = stored(tmp_path / folder)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


MOE: dict[str, Any] = {"kind": "moe", "experts": 4, "top_k": 2, "width": 8}
LATENTS = {"kind": "mla", "heads": 2, "kv_rank": 6, "nope_dim": 4, "rope_dim": 4, "value_dim": 4}
CHOICE = {"score": "sigmoid", "shared_width": 16, "balance": {"kind": "bias"}}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mixtral", {"feedforward": MOE}),
        ("mixtral", {"feedforward": {**MOE, "balance": {"kind": "loss"}, "z_loss": 0.1}}),
        ("qwen3_moe", {"feedforward": MOE, "attention": {"heads": 4, "kv_heads": 2, "qk_norm": "head"}}),
        ("deepseek_v3", {"attention": LATENTS, "feedforward": {**MOE, **CHOICE}}),
        (
            "gpt_oss",
            {
                "attention": {"heads": 4, "kv_heads": 2, "sinks": True},
                "feedforward": {**MOE, "activation": "clamped_swiglu", "bias": True},
            },
        ),
    ],
)
def test_a_model_of_ours_is_exported_to_the_family_that_has_its_parts(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    ours = decoder(section(**changes)).eval()
    export_model(ours, tmp_path / "theirs", context=64)
    assert read_json(tmp_path / "theirs" / "config.json")["model_type"] == family
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", attn_implementation="eager").eval()
    torch.testing.assert_close(ours(tokens(2, 9)), theirs(tokens(2, 9)).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("mixtral", {}, "feedforward is 'swiglu', not moe"),
        ("mixtral", {"feedforward": {**MOE, "normalize": False}}, "normalize is False"),
        ("mixtral", {"feedforward": {**MOE, "scale": 2.0}}, "scale is 2.0"),
        ("qwen3_moe", {"feedforward": MOE}, "qk_norm is None"),
        (
            "deepseek_v3",
            {"attention": LATENTS, "feedforward": {**MOE, **CHOICE, "shared_width": 12}},
            "shared_width is 12",
        ),
        ("gpt_oss", {"feedforward": MOE}, "sinks is False"),
    ],
)
def test_what_a_family_lacks_is_named_on_export(
    tmp_path: Path, family: str, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        export_model(decoder(section(**changes)), tmp_path / "theirs", context=64, family=family)
