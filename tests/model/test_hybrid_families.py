"""Families whose layers differ in kind: transformers against ours, from the files it saves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from family_checks import check_family, known_fields, random_peer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import VOCAB, decoder, section, tokens
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    GraniteMoeHybridConfig,
    NemotronHConfig,
    PreTrainedConfig,
    Qwen3NextConfig,
)

from smelt.errors import InputError
from smelt.files import read_json, write_json
from smelt.model.families import export_model, import_model
from smelt.model.families.table import FAMILIES

MULTIPLIERS = st.sampled_from([0.5, 1.0, 1.7])
LIMITS = st.sampled_from([(0.0, float("inf")), (0.0, float("inf")), (0.4, 1.1), (0.0, 0.8), (0.4, float("inf"))])


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """Fields that these families spell alike."""
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return {
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        "initializer_range": 0.02,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }


@st.composite
def kinds(draw: st.DrawFn, attention: str, *others: str) -> list[str]:
    """What each of a few layers is, at least one of them attention: the caches of transformers want that."""
    found = draw(st.lists(st.sampled_from([attention, *others]), max_size=3))
    return draw(st.permutations([attention, *found]))


def unclamped(config: PreTrainedConfig) -> int:
    """Tokens to decode: none where time steps are clamped, which transformers forgets in its recurrent form."""
    return 6 if config.time_step_limit == (0.0, float("inf")) else 0


@settings(max_examples=4)
@given(data=st.data(), base=shapes(), seed=st.integers(0, 99))
def test_granitemoehybrid(data: st.DataObject, base: dict[str, Any], seed: int) -> None:
    """ARCH-27: Mamba-2 among attention, four multipliers, with and without experts and positions."""
    types = data.draw(kinds("attention", "mamba"))
    groups = data.draw(st.integers(1, 2))
    experts = data.draw(st.sampled_from([0, 2, 5]))
    config = GraniteMoeHybridConfig(
        **base,
        num_hidden_layers=len(types),
        layer_types=types,
        position_embedding_type=data.draw(st.sampled_from([None, "rope"])),
        rms_norm_eps=data.draw(st.sampled_from([1e-6, 1e-3])),
        tie_word_embeddings=data.draw(st.booleans()),
        attention_bias=data.draw(st.booleans()),
        embedding_multiplier=data.draw(MULTIPLIERS),
        logits_scaling=data.draw(MULTIPLIERS),
        residual_multiplier=data.draw(MULTIPLIERS),
        attention_multiplier=data.draw(MULTIPLIERS),
        num_local_experts=experts,
        num_experts_per_tok=data.draw(st.integers(1, 2)),
        intermediate_size=8,
        shared_intermediate_size=data.draw(st.integers(3, 12)),
        mamba_n_heads=groups * data.draw(st.sampled_from([2, 4])),
        mamba_n_groups=groups,
        mamba_d_state=data.draw(st.integers(2, 6)),
        mamba_d_conv=data.draw(st.integers(2, 4)),
        mamba_expand=data.draw(st.integers(1, 2)),
        mamba_chunk_size=data.draw(st.sampled_from([4, 16])),
        mamba_conv_bias=data.draw(st.booleans()),
        mamba_proj_bias=data.draw(st.booleans()),
        time_step_limit=data.draw(LIMITS),
    )
    check_family(config, seed, new_tokens=unclamped(config))


@settings(max_examples=5)
@given(data=st.data(), base=shapes(), seed=st.integers(0, 99))
def test_nemotron_h(data: st.DataObject, base: dict[str, Any], seed: int) -> None:
    """ARCH-27: every pattern of Mamba-2, attention, feed-forwards and experts, one in a layer."""
    pattern = "".join(data.draw(kinds("*", "M", "-", "E")))
    groups, sets = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    config = NemotronHConfig(
        **base,
        hybrid_override_pattern=pattern,
        head_dim=data.draw(st.integers(2, 6)),
        intermediate_size=data.draw(st.integers(3, 12)),
        mlp_bias="E" not in pattern and data.draw(st.booleans()),
        layer_norm_epsilon=data.draw(st.sampled_from([1e-5, 1e-3])),
        mamba_num_heads=groups * data.draw(st.integers(1, 2)),
        mamba_head_dim=data.draw(st.integers(2, 6)),
        n_groups=groups,
        ssm_state_size=data.draw(st.integers(2, 6)),
        conv_kernel=data.draw(st.integers(2, 4)),
        chunk_size=data.draw(st.sampled_from([4, 16])),
        use_bias=data.draw(st.booleans()),
        use_conv_bias=data.draw(st.booleans()),
        time_step_min=data.draw(st.sampled_from([1e-3, 0.5])),
        n_routed_experts=sets * data.draw(st.integers(2, 3)),
        n_group=sets,
        topk_group=data.draw(st.integers(1, sets)),
        num_experts_per_tok=data.draw(st.integers(1, 2)),
        moe_intermediate_size=8,
        moe_shared_expert_intermediate_size=data.draw(st.integers(3, 12)),
        norm_topk_prob=data.draw(st.booleans()),
        routed_scaling_factor=data.draw(st.sampled_from([1.0, 2.5])),
    )
    check_family(config, seed, new_tokens=6 if config.time_step_min == 1e-3 else 0)


@settings(max_examples=4)
@given(data=st.data(), base=shapes(), seed=st.integers(0, 99))
def test_falcon_h1(data: st.DataObject, base: dict[str, Any], seed: int) -> None:
    """ARCH-27: attention and Mamba-2 side by side, twelve multipliers."""
    groups, bias, normed = data.draw(st.integers(1, 2)), data.draw(st.booleans()), data.draw(st.booleans())
    heads = groups * data.draw(st.integers(1, 2))
    config = FalconH1Config(
        **base,
        num_hidden_layers=data.draw(st.integers(1, 2)),
        intermediate_size=data.draw(st.integers(3, 12)),
        tie_word_embeddings=data.draw(st.booleans()),
        rope_theta=data.draw(st.sampled_from([1e4, 1e11])),
        attention_bias=data.draw(st.booleans()),
        mlp_bias=data.draw(st.booleans()),
        mamba_d_ssm=heads * data.draw(st.integers(2, 6)),
        mamba_n_heads=heads,
        mamba_n_groups=groups,
        mamba_d_state=data.draw(st.integers(2, 6)),
        mamba_d_conv=data.draw(st.integers(2, 4)),
        mamba_chunk_size=data.draw(st.sampled_from([4, 16])),
        mamba_conv_bias=data.draw(st.booleans()),
        mamba_proj_bias=bias,
        projectors_bias=bias,
        mamba_rms_norm=normed,
        mamba_norm_before_gate=data.draw(st.booleans()),
        lm_head_multiplier=data.draw(MULTIPLIERS),
        embedding_multiplier=data.draw(MULTIPLIERS),
        mlp_multipliers=data.draw(st.lists(MULTIPLIERS, min_size=2, max_size=2)),
        key_multiplier=data.draw(MULTIPLIERS),
        attention_in_multiplier=data.draw(MULTIPLIERS),
        attention_out_multiplier=data.draw(MULTIPLIERS),
        ssm_multipliers=data.draw(st.lists(MULTIPLIERS, min_size=5, max_size=5)),
        ssm_in_multiplier=data.draw(MULTIPLIERS),
        ssm_out_multiplier=data.draw(MULTIPLIERS),
        time_step_limit=data.draw(LIMITS),
    )
    check_family(config, seed, new_tokens=unclamped(config))


@settings(max_examples=4)
@given(data=st.data(), base=shapes(), seed=st.integers(0, 99))
def test_qwen3_next(data: st.DataObject, base: dict[str, Any], seed: int) -> None:
    """ARCH-27: Gated DeltaNet among gated attention, partial rotary positions, a gated shared expert."""
    types = data.draw(kinds("full_attention", "linear_attention"))
    key_heads = data.draw(st.integers(1, 2))
    config = Qwen3NextConfig(
        **base,
        num_hidden_layers=len(types),
        layer_types=types,
        head_dim=data.draw(st.sampled_from([8, 16])),
        intermediate_size=data.draw(st.integers(3, 12)),
        rope_theta=data.draw(st.sampled_from([1e4, 1e7])),
        tie_word_embeddings=data.draw(st.booleans()),
        linear_num_key_heads=key_heads,
        linear_num_value_heads=key_heads * data.draw(st.integers(1, 3)),
        rms_norm_eps=1e-3,  # a head of few channels may write next to nothing: a small eps would blow up its rounding
        linear_key_head_dim=data.draw(st.integers(4, 8)),
        linear_value_head_dim=data.draw(st.integers(4, 8)),
        linear_conv_kernel_dim=data.draw(st.integers(2, 4)),
        num_experts=data.draw(st.sampled_from([0, 2, 5])),
        num_experts_per_tok=data.draw(st.integers(1, 2)),
        moe_intermediate_size=8,
        shared_expert_intermediate_size=data.draw(st.integers(3, 12)),
        norm_topk_prob=data.draw(st.booleans()),
        decoder_sparse_step=data.draw(st.integers(1, 2)),
        mlp_only_layers=data.draw(st.lists(st.integers(0, len(types) - 1), unique=True, max_size=1)),
    )
    check_family(config, seed)


SMALL = {"vocab_size": VOCAB, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
MAMBA = {"mamba_n_heads": 2, "mamba_d_state": 4}
CONFIGS: dict[str, PreTrainedConfig] = {
    "granitemoehybrid": GraniteMoeHybridConfig(
        **SMALL, **MAMBA, num_hidden_layers=2, layer_types=["mamba", "attention"], shared_intermediate_size=8
    ),
    "nemotron_h": NemotronHConfig(
        **SMALL,
        hybrid_override_pattern="M*-E",
        mamba_num_heads=2,
        mamba_head_dim=4,
        n_groups=1,
        ssm_state_size=4,
        head_dim=4,
        intermediate_size=8,
        moe_intermediate_size=8,
        moe_shared_expert_intermediate_size=8,
        n_routed_experts=4,
    ),
    "falcon_h1": FalconH1Config(**SMALL, **MAMBA, num_hidden_layers=1, mamba_d_ssm=16, intermediate_size=8),
    "qwen3_next": Qwen3NextConfig(
        **SMALL,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        head_dim=8,
        linear_num_key_heads=1,
        linear_num_value_heads=2,
        linear_key_head_dim=4,
        linear_value_head_dim=4,
        moe_intermediate_size=4,
        shared_expert_intermediate_size=4,
        num_experts=4,
        num_experts_per_tok=2,
    ),
}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_field_of_the_family_is_known(family: str) -> None:
    """So none is passed over for being off where transformers has it on by default."""
    assert not set(CONFIGS[family].to_dict()) - known_fields(FAMILIES[family])


@pytest.mark.parametrize(
    ("family", "fields", "named"),
    [
        ("granitemoehybrid", {"position_embedding_type": "alibi"}, "position_embedding_type"),
        ("granitemoehybrid", {"normalization_function": "layernorm"}, "normalization_function"),
        ("granitemoehybrid", {"layer_types": ["mamba", "sliding_attention"]}, "layer_types"),
        ("granitemoehybrid", {"mamba_d_head": 3}, "mamba_d_head"),
        ("nemotron_h", {"mlp_hidden_act": "silu"}, "mlp_hidden_act"),
        ("nemotron_h", {"moe_latent_size": 4}, "moe_latent_size"),
        ("nemotron_h", {"mlp_bias": True}, "mlp_bias"),
        ("nemotron_h", {"sliding_window": 8}, "sliding_window"),
        ("nemotron_h", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("nemotron_h", {"time_step_limit": [0.0, 1.0]}, "time_step_limit"),
        ("nemotron_h", {"n_shared_experts": 2}, "n_shared_experts"),
        ("nemotron_h", {"layers_block_type": ["mamba", "rwkv"]}, "'rwkv'"),
        ("falcon_h1", {"projectors_bias": True}, "mamba_proj_bias"),
        ("falcon_h1", {"mamba_use_mlp": False}, "mamba_use_mlp"),
        ("falcon_h1", {"attn_layer_indices": [0]}, "attn_layer_indices"),
        ("qwen3_next", {"attention_bias": True}, "attention_bias"),
        ("qwen3_next", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen3_next", {"layer_types": ["linear_attention"]}, "layer_types"),
    ],
)
def test_a_field_that_would_change_the_maths_is_refused_by_name(
    tmp_path: Path, family: str, fields: dict[str, Any], named: str
) -> None:
    write_json(tmp_path / "config.json", {**CONFIGS[family].to_dict(), **fields})
    with pytest.raises(InputError, match=named) as error:
        import_model(tmp_path)
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["nemotron_h", "qwen3_next"])
def test_layers_of_multi_token_prediction_are_left_out_with_a_word(tmp_path: Path, family: str) -> None:
    random_peer(CONFIGS[family], 0).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "mtp.layers.0.norm.weight": torch.zeros(2)}, path)
    said: list[str] = []
    import_model(tmp_path, warn=said.append)
    [word] = said
    assert "multi-token" in word and "mtp.layers.0.norm.weight" in word


MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 4}
DELTA = {"kind": "gated_deltanet", "key_heads": 2, "value_heads": 4, "key_dim": 4, "value_dim": 4}
GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}
NOTHING = {"kind": "none"}
MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 8}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("granitemoehybrid", {"attention": MAMBA2, "per_layer": [{"layers": 1, "attention": GQA}]}),
        (
            "nemotron_h",
            {
                "attention": MAMBA2,
                "position": NOTHING,
                "feedforward": NOTHING,
                "tie_embeddings": False,
                "per_layer": [
                    {"layers": 1, "attention": NOTHING, "feedforward": {"kind": "relu2", "width": 24}},
                    {"layers": 2, "attention": GQA},
                ],
            },
        ),
        ("falcon_h1", {"attention": {"kind": "parallel", "branches": [{"mixer": GQA}, {"mixer": MAMBA2}]}}),
        (
            "qwen3_next",
            {
                "attention": DELTA,
                "norm": {"zero_centered": True},
                "per_layer": [{"layers": 2, "attention": {**GQA, "qk_norm": "head", "gate": "channel"}}],
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
        ("granitemoehybrid", {"attention": {**MAMBA2, "heads": 5}}, r"channels of its Mamba-2 \(40\)"),
        ("granitemoehybrid", {"attention": {**MAMBA2, "groups": 2}}, "norm_groups is 1, and it has only 2"),
        ("granitemoehybrid", {"attention": MAMBA2, "feedforward": MOE}, "shared_width is None"),
        ("nemotron_h", {}, "tie_embeddings is True"),
        ("nemotron_h", {"tie_embeddings": False}, "one of them in a layer"),
        ("falcon_h1", {}, "attention is 'gqa', not parallel"),
        ("qwen3_next", {"attention": DELTA}, "zero_centered is False"),
    ],
)
def test_what_a_family_lacks_is_named_on_export(
    tmp_path: Path, family: str, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        export_model(decoder(section(**changes)), tmp_path / "theirs", context=64, family=family)
