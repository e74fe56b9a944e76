"""Parameters and FLOPs from the recipe alone."""

import pytest

from smelt.recipe.account import flops_per_token, parameters
from smelt.recipe.sections.model import Model

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
    """ABL-04."""
    assert round(parameters(baseline(kv_heads, layers), 128_256)["total"] / 1e9, 3) == billions


def test_the_breakdown_of_the_worked_example() -> None:
    """ABL-04."""
    parts = parameters(baseline(32), 128_000)
    assert [round(parts[name] / 1e6) for name in ("embedding", "attention", "feedforward")] == [262, 268, 805]
    assert (round(parts["norm"] / 1e3), round(parts["total"] / 1e9, 2), parts["head"]) == (68, 1.34, 0)
    assert (
        parameters(baseline(4, tie=False), 128_256)["total"] - parameters(baseline(4), 128_256)["total"] == 262_668_288
    )


def test_flops_count_weights_six_times_and_causal_attention_at_half() -> None:
    """SCALE-01."""
    model = baseline(4)
    parts = parameters(model, 128_256)
    weights = parts["total"] - parts["norm"]
    assert flops_per_token(model, 128_256, 4096) == 6 * weights + 6 * 16 * 2048 * 4096
