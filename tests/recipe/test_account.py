"""Parameters, FLOPs and cache bytes from the recipe alone."""

from pathlib import Path
from typing import Any

import pytest

from smelt.recipe.account import (
    cache_bytes,
    cost,
    flops_per_token,
    forward_flops,
    granularity,
    parameters,
    sparsity,
    training_flops,
)
from smelt.recipe.load import load_recipe
from smelt.recipe.parts.moe import MixtureOfExperts
from smelt.recipe.sections.model import Model

ARCHITECTURES = Path(__file__).parents[2] / "recipes" / "architectures"
GIB = 2**30

SMOLLM3 = Model.model_validate(
    {
        "hidden": 2048,
        "layers": 36,
        "attention": {"heads": 16, "kv_heads": 4},
        "feedforward": {"width": 11008},
        "per_layer": [{"layers": "3::4", "position": {"kind": "none"}}],
    }
)


def baseline(kv_heads: int, layers: int = 16, tie: bool = True) -> Model:
    return Model.model_validate(
        {
            "hidden": 2048,
            "layers": layers,
            "attention": {"heads": 32, "kv_heads": kv_heads},
            "feedforward": {"width": 8192},
            "tie_embeddings": tie,
        }
    )


def test_smollm3_has_exactly_its_published_parameters() -> None:
    """ARCH-27."""
    assert parameters(SMOLLM3, 128_256)["total"] == 3_075_098_624


@pytest.mark.parametrize(
    ("kv_heads", "layers", "billions"),
    [(1, 16, 1.206), (2, 16, 1.211), (4, 16, 1.219), (8, 16, 1.236), (16, 15, 1.206), (32, 14, 1.202)],
)
def test_the_size_matched_attention_variants(kv_heads: int, layers: int, billions: float) -> None:
    """ABL-04: the six sizes of PLAYBOOK 4.2."""
    assert round(parameters(baseline(kv_heads, layers), 128_256)["total"] / 1e9, 3) == billions


def test_the_breakdown_of_the_worked_example() -> None:
    """ABL-04."""
    parts = parameters(baseline(32), 128_000)
    assert [round(parts[name] / 1e6) for name in ("embedding", "attention", "feedforward")] == [262, 268, 805]
    assert (round(parts["norm"] / 1e3), round(parts["total"] / 1e9, 2), parts["head"]) == (68, 1.34, 0)


def test_flops_count_weights_six_times_and_causal_attention_at_half() -> None:
    """SCALE-01."""
    model = baseline(4)
    parts = parameters(model, 128_256)
    weights = parts["total"] - parts["norm"]
    assert flops_per_token(model, 128_256, 4096) == 6 * weights + 6 * 16 * 2048 * 4096


def test_tying_saves_one_table() -> None:
    """ARCH-08: V * h, 262.7M at 128,256 x 2048."""
    tied, untied = (parameters(baseline(4, tie=tie), 128_256) for tie in (True, False))
    assert untied["total"] - tied["total"] == untied["head"] == 128_256 * 2048 == 262_668_288


@pytest.mark.parametrize(
    ("name", "vocab", "total", "active"),
    [
        ("llama-3.2-1b", 128_256, 1_235_814_400, 1.236),
        ("smollm3-3b", 128_256, 3_075_098_624, 3.075),
        ("olmo2-7b", 100_352, 7_298_617_344, 7.299),
        ("gemma3-1b", 262_144, 999_885_952, 1.0),
        ("mixtral-8x7b", 32_000, 46_702_792_704, 12.9),
        ("deepseek-v3", 129_280, 671_026_419_200, 37.6),
        ("qwen3-30b-a3b", 151_936, 30_532_122_624, 3.35),
        ("qwen3-next-80b-a3b", 151_936, 79_674_391_296, 3.87),
        ("gpt-oss-20b", 201_088, 20_914_757_184, 4.19),
        ("nemotron-h-8b", 131_072, 8_100_852_736, 8.1),
        ("falcon-h1-0.5b", 32_784, 521_411_104, 0.521),
    ],
)
def test_published_architectures_have_their_published_parameters(
    name: str, vocab: int, total: int, active: float
) -> None:
    """ARCH-20, ARCH-27: totals as counted from the released weights, without layers of multi-token prediction."""
    parts = parameters(architecture(name), vocab)
    assert parts["total"] - parts["multi_token"] == total
    assert parts["active"] / 1e9 == pytest.approx(active, rel=5e-3)


def test_gpt_oss_counts_no_embedding_among_its_active_parameters() -> None:
    parts = parameters(architecture("gpt-oss-20b"), 201_088)
    assert round((parts["active"] - parts["embedding"]) / 1e9, 2) == 3.61


def test_deepseek_v3_trains_at_250_gflops_a_token() -> None:
    """DeepSeek's own figure for rows of 4096 tokens, without multi-token prediction."""
    model = architecture("deepseek-v3").model_copy(update={"multi_token": None})
    assert flops_per_token(model, 129_280, 4096) / 1e9 == pytest.approx(250, rel=5e-3)
    assert flops_per_token(model, 129_280, 4096) == 3 * forward_flops(model, 129_280, 4096)


@pytest.mark.parametrize(("layers", "heads", "gib"), [(32, 32, 4), (80, 64, 20)])
def test_the_cache_of_multi_head_attention_at_8192(layers: int, heads: int, gib: int) -> None:
    """ARCH-02: 4.0 GiB for the 8B, 20.0 GiB for the 70B, and 64 times less with one key-value head."""
    shape = {"hidden": 128 * heads, "layers": layers, "feedforward": {"width": 1}}
    multi_head = Model.model_validate({**shape, "attention": {"heads": heads, "kv_heads": heads}})
    multi_query = Model.model_validate({**shape, "attention": {"heads": heads, "kv_heads": 1}})
    assert cache_bytes(multi_head, 8192) == gib * GIB
    assert cache_bytes(multi_query, 8192) * heads == gib * GIB


def test_a_latent_cache_holds_four_and_a_half_heads_a_token() -> None:
    """ARCH-03: (4 + 0.5) * head_dim numbers a token and layer, whatever the heads."""
    model = architecture("deepseek-v3")
    assert cache_bytes(model, 1000) == 61 * 4.5 * 128 * 1000 * 2


def test_windows_bound_the_cache_and_recurrent_layers_keep_a_state_of_fixed_size() -> None:
    gemma, hybrid = architecture("gemma3-1b"), architecture("nemotron-h-8b")
    assert cache_bytes(gemma, 8192) == 2 * 2 * 256 * (22 * 512 + 4 * 8192)
    longer = cache_bytes(hybrid, 8192) - cache_bytes(hybrid, 4096)
    assert longer == 4 * 2 * 2 * 8 * 128 * 4096
    assert cache_bytes(hybrid, 4096) - longer == 24 * (4 * 128 * 64 * 128 + 2 * (128 * 64 + 2 * 8 * 128) * 3)


@pytest.mark.parametrize(
    ("experts", "shared", "chosen", "hidden", "width", "sparse", "fine"),
    [
        (8, 0, 2, 4096, 14336, 4.0, 0.571),  # Mixtral 8x7B
        (8, 0, 2, 8192, 16384, 4.0, 1.0),  # Grok-2
        (64, 0, 8, 2048, 1024, 8.0, 4.0),  # OLMoE
        (32, 0, 4, 2880, 2880, 8.0, 2.0),  # gpt-oss-20b; the playbook prints 0.5
        (48, 1, 3, 7168, 5120, 12.25, 2.8),  # Step-3
        (128, 1, 8, 4096, 1408, 14.3, 5.8),  # GLM-4.5-Air
        (128, 0, 8, 2048, 768, 16.0, 5.3),  # Qwen3-30B-A3B
        (128, 0, 8, 4096, 1536, 16.0, 5.3),  # Qwen3-235B-A22B
        (160, 1, 8, 5120, 1536, 17.8, 6.6),  # GLM-4.5; 17.9 by the formula
        (160, 2, 6, 5120, 1536, 20.25, 6.6),  # DeepSeek-V2
        (256, 1, 8, 7168, 2048, 28.6, 7.0),  # DeepSeek-V3
        (128, 0, 4, 2880, 2880, 32.0, 2.0),  # gpt-oss-120b; the playbook prints 0.5
        (384, 1, 8, 7168, 2048, 42.8, 7.0),  # Kimi K2
        (512, 1, 10, 2048, 512, 46.6, 8.0),  # Qwen3-Next
    ],
)
def test_sparsity_and_granularity_of_the_table_of_experts(
    experts: int, shared: int, chosen: int, hidden: int, width: int, sparse: float, fine: float
) -> None:
    """ARCH-21: PLAYBOOK 4.9, to the digits printed there."""
    part = MixtureOfExperts(kind="moe", experts=experts, top_k=chosen, width=width, shared_width=shared * width or None)
    assert sparsity(part) == pytest.approx(sparse, abs=0.1)
    assert granularity(part, hidden) == pytest.approx(fine, abs=0.07)


def test_the_cost_of_a_recipe_in_one_answer() -> None:
    """ARCH-21: DeepSeek-V3 28.6 and 7.0."""
    facts = cost(load_recipe(ARCHITECTURES / "deepseek-v3.yaml"), 129_280, 4096)
    [experts] = facts["experts"]
    assert (round(experts["sparsity"], 1), experts["granularity"]) == (28.6, 7.0)
    assert facts["parameters"]["total"] > 671e9
    dense = cost(load_recipe(ARCHITECTURES / "smollm3-3b.yaml"), 128_256, 4096)
    assert "experts" not in dense and "training_flops" not in dense


def test_training_flops_follow_every_stage() -> None:
    demo = load_recipe(ARCHITECTURES.parent / "demo.yaml", ["train.stages.1.sequence=512"])
    once = [flops_per_token(demo.section("model"), 1024, sequence) for sequence in (256, 512)]
    first, second = (stage.steps for stage in demo.section("train").stages)
    assert training_flops(demo, 1024) == 2048 * (first * once[0] + second * once[1])
    assert cost(demo, 1024, 512)["training_flops"] == training_flops(demo, 1024)


def architecture(name: str) -> Model:
    model: Any = load_recipe(ARCHITECTURES / f"{name}.yaml").model
    assert isinstance(model, Model)
    return model
