"""Initial values: what each scheme draws, and that any slice of any parameter can be drawn alone."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import VOCAB, decoder, section, tokens

from smelt.model import init as module
from smelt.model.decoder import Decoder
from smelt.model.init import draw, fillings, initialise, normal
from smelt.model.parts import FEEDFORWARDS, MIXERS
from smelt.optim.optimizers import build_optimizer
from smelt.recipe.parts.linear import LinearAttention
from smelt.recipe.parts.table import KINDS
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.train import AdamW

MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 6, "groups": 2, "bias": True}
DELTANET = {"kind": "gated_deltanet", "key_heads": 2, "value_heads": 4, "key_dim": 6, "value_dim": 5}
GATES = LinearAttention.model_fields["gate"].annotation.__args__
MIXING: list[dict[str, Any]] = [
    {"kind": "gqa", "heads": 4, "kv_heads": 2, "bias": "all", "qk_norm": "head", "gate": "channel", "sinks": True},
    {"kind": "mla", "heads": 4, "kv_rank": 8, "q_rank": 6, "nope_dim": 4, "rope_dim": 2, "value_dim": 4},
    MAMBA2,
    DELTANET,
    {"kind": "parallel", "branches": [{"mixer": MAMBA2}, {"mixer": {"heads": 4, "kv_heads": 2}}]},
    *(
        {"kind": "linear", "heads": 2, "key_dim": 4, "value_dim": 6, "gate": gate, "output_gate": True}
        for gate in GATES
    ),
]
EXPERTS = {"kind": "moe", "experts": 4, "top_k": 2, "width": 12, "shared_width": 10, "shared_gate": True, "bias": True}
FEEDING: list[dict[str, Any]] = [
    {"kind": "swiglu", "width": 24, "bias": True},
    {"kind": "geglu", "width": 24},
    {"kind": "relu2", "width": 24},
    {**EXPERTS, "balance": {"kind": "bias"}},
]
SCHEMES: list[dict[str, Any]] = [
    {"kind": "normal"},
    {"kind": "truncated", "std": 0.006},
    {"kind": "scaled"},
    {"kind": "mup", "base_hidden": 8},
]


def everything(**changes: Any) -> Model:
    """A model with a layer for every kind of part."""
    layers = max(len(MIXING), len(FEEDING))
    kinds = [
        {"layers": index, "attention": MIXING[index % len(MIXING)], "feedforward": FEEDING[index % len(FEEDING)]}
        for index in range(layers)
    ]
    fields = {"layers": layers, "per_layer": kinds, "multi_token": {"depth": 1}, "tie_embeddings": False}
    return section(**{**fields, "position": {"kind": "learned", "length": 9}, **changes})


def test_the_tests_below_see_every_kind_of_part() -> None:
    kinds = {
        (name, each["kind"])
        for name, each in (*(("attention", m) for m in MIXING), *(("feedforward", f) for f in FEEDING))
    }
    assert kinds == {("attention", kind) for kind in MIXERS} | {("feedforward", kind) for kind in FEEDFORWARDS}
    assert {(part, kind) for part in KINDS for kind in KINDS[part] if kind != "none"} >= kinds


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme["kind"])
def test_a_slice_of_any_parameter_drawn_alone_is_that_slice_of_the_whole(
    scheme: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ARCH-18: a value is a function of seed, name and flat index, in every kind of part, however it is drawn."""
    monkeypatch.setattr(module, "_PIECE", 50)
    model = Decoder(everything(init=scheme), VOCAB)
    initialise(model, seed=7)
    parameters = list(fillings(model))
    assert {name for name, _, _ in parameters} == {name for name, _ in model.named_parameters()}
    for place, (name, parameter, fill) in enumerate(parameters):
        flat = parameter.detach().flatten()
        start = (place * 37) % len(flat)
        for first, count in ((0, len(flat)), (start, min(41, len(flat) - start)), (len(flat) - 1, 1)):
            alone = draw(name, 7, first, count, fill).float()
            assert alone.isfinite().all() and torch.equal(alone, flat[first : first + count]), name


@given(start=st.integers(0, 900), count=st.integers(0, 99))
def test_any_slice_of_a_stream_can_be_drawn_alone(start: int, count: int) -> None:
    """ARCH-18"""
    whole = draw("x", 7, 0, 1000, normal(1.0))
    assert torch.equal(whole[start : start + count], draw("x", 7, start, count, normal(1.0)))


def test_values_depend_on_seed_and_name_alone() -> None:
    """ARCH-18: a deeper model starts with the shallower one's layers; another seed or name gives other values."""
    shallow, deep, other = decoder(seed=1), decoder(section(layers=5), seed=1), decoder(seed=2)
    for name, parameter in shallow.named_parameters():
        assert torch.equal(parameter, deep.get_parameter(name))
    assert not torch.equal(shallow.embedding.weight, other.embedding.weight)
    assert not torch.equal(shallow.layers[0].attention.k.weight, shallow.layers[0].attention.v.weight)


def test_values_of_plain_models_are_what_they_always_were() -> None:
    """So that a run of yesterday can be repeated today."""
    model = Decoder(section(init={"kind": "normal", "std": 1.0}), VOCAB)
    initialise(model, seed=0)
    for name, values in {
        "embedding.weight": [0.5457053, 0.1079428, -1.3634852],
        "layers.0.attention.q.weight": [-0.2752894, 0.3254899, -0.6509811],
        "layers.1.feedforward.down.weight": [-0.4496991, -0.0786505, -1.5319947],
    }.items():
        torch.testing.assert_close(model.get_parameter(name).flatten()[:3], torch.tensor(values))


def large(init: dict[str, Any], **changes: Any) -> Decoder:
    fields = {"hidden": 256, "attention": {"heads": 8, "kv_heads": 4}, "feedforward": {"width": 512}, "layers": 2}
    model = Decoder(section(**{**fields, "init": init, "tie_embeddings": False, **changes}), 1024)
    initialise(model, seed=3)
    return model


@pytest.mark.parametrize("std", [0.02, 0.006])
@pytest.mark.parametrize("kind", ["normal", "truncated"])
def test_matrices_start_with_the_given_deviation_and_norms_at_one(kind: str, std: float) -> None:
    """ARCH-18: sample deviation within 2 %; truncated draws end at three deviations, and only there."""
    for name, parameter in large({"kind": kind, "std": std}).named_parameters():
        if parameter.ndim == 1:
            assert (parameter == 1).all(), name
            continue
        assert abs(parameter.std().item() / std - 1) < 0.02, name
        assert abs(parameter.mean().item()) < std * 5 / parameter.numel() ** 0.5, name
        reach = parameter.abs().max().item() / std
        assert 2.9 < reach <= 3 if kind == "truncated" else reach > 3.5, name


def test_a_truncated_draw_follows_the_truncated_normal_distribution() -> None:
    from scipy import stats

    values = draw("x", 0, 0, 20_000, module.truncated(2.0)).numpy()
    assert stats.kstest(values, stats.truncnorm(-3, 3, scale=2.0).cdf).pvalue > 0.01


def test_scaled_narrows_what_writes_to_the_residual_stream() -> None:
    """std / sqrt(2 * layers), also for every expert."""
    experts = {"kind": "moe", "experts": 4, "top_k": 2, "width": 128, "shared_width": 64}
    model = large({"kind": "scaled"}, layers=8, per_layer=[{"layers": "1::2", "feedforward": experts}])
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            writes = ("attention.o.weight", "feedforward.down.weight", "experts.down", "shared.down.weight")
            expected = 0.02 / (4 if name.endswith(writes) else 1)
            assert abs(parameter.std().item() / expected - 1) < 0.03, name


def test_mup_narrows_matrices_with_the_width_and_leaves_embeddings_and_head() -> None:
    """std * sqrt(base / hidden); every expert is a matrix of its own."""
    experts = {"kind": "moe", "experts": 8, "top_k": 2, "width": 64}
    model = large({"kind": "mup", "base_hidden": 64}, per_layer=[{"layers": 1, "feedforward": experts}])
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            expected = 0.02 * (1 if name.startswith(("embedding", "head")) else 0.5)
            assert abs(parameter.std().item() / expected - 1) < 0.05, name
    x, y = tokens(1, 5, vocab=1024), tokens(1, 5, vocab=1024, seed=1)
    plain = Decoder(model.config.model_copy(update={"init": section().init}), 1024)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x), plain(x) / 4)
    expected = torch.nn.functional.cross_entropy(plain(x)[0] / 4, y[0], reduction="none")
    torch.testing.assert_close(model(x, targets=y)[0], expected)


def test_mup_at_its_base_width_is_the_plain_model() -> None:
    base, plain = (large(init) for init in ({"kind": "mup", "base_hidden": 256}, {"kind": "normal"}))
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, base.get_parameter(name)), name
    assert [group["name"] for group in build_optimizer(base, AdamW()).param_groups] == ["decay", "no_decay"]


def changes_of_activations(hidden: int, init: dict[str, Any], steps: int = 4) -> dict[str, float]:
    """Mean size of what a few steps of Adam change, in the states after every layer and in the logits."""
    config = Model.model_validate(
        {
            "hidden": hidden,
            "layers": 2,
            "attention": {"heads": hidden // 16, "kv_heads": hidden // 32},
            "feedforward": {"width": 2 * hidden},
            "tie_embeddings": False,
            "init": init,
        }
    )
    model = Decoder(config, VOCAB)
    initialise(model, 0)
    model.embedding.requires_grad_(False)  # its steps are alike at every width, and would hide what the matrices do
    optimizer = build_optimizer(model, AdamW(lr=2e-3, weight_decay=0.0, no_decay=()))
    x, y = tokens(4, 16), tokens(4, 16, seed=1)
    recorded: dict[str, list[torch.Tensor]] = {}
    for index, layer in enumerate(model.layers):
        layer.register_forward_hook(
            lambda _, given, out, index=index: recorded.setdefault(f"layer {index}", []).append(out[0])
        )
    recorded["logits"] = [model(x)]
    for _ in range(steps):
        model(x, targets=y).mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * group["lr_factor"]
        optimizer.step()
        optimizer.zero_grad()
    recorded["logits"].append(model(x))
    return {name: (each[-1] - each[0]).abs().mean().item() for name, each in recorded.items()}


def test_under_mup_steps_change_activations_alike_at_every_width() -> None:
    """ARCH-18, the coordinate check (Yang et al. 2022, section D.1): over widths 64 to 512 the exponent of the change
    of every activation is about 0 with muP, and clearly positive without."""
    widths = [64, 128, 256, 512]
    slopes = {}
    for kind, init in (("mup", {"kind": "mup", "base_hidden": 64}), ("normal", {"kind": "normal"})):
        sizes = [changes_of_activations(width, init) for width in widths]
        slopes[kind] = {
            name: math.log(sizes[-1][name] / sizes[0][name]) / math.log(widths[-1] / widths[0]) for name in sizes[0]
        }
    assert all(abs(slope) < 0.15 for slope in slopes["mup"].values()), slopes
    assert all(slope > 0.6 for slope in slopes["normal"].values()), slopes
