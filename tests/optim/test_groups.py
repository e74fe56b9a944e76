"""Every parameter belongs to exactly one group, which its name decides."""

import pytest
import torch
from torch import nn

from smelt.errors import InputError
from smelt.model.decoder import Decoder
from smelt.optim.groups import parameter_groups
from smelt.optim.optimizers import build_optimizer
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.optimizer import AdamW, Muon, ParameterGroup


def model() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"embedding": nn.Embedding(5, 4), "layer": nn.Linear(4, 3), "norm": nn.RMSNorm(4)})


EXPERTS = Model.model_validate(
    {
        "hidden": 32,
        "layers": 2,
        "attention": {"heads": 4, "kv_heads": 2, "bias": "qkv"},
        "feedforward": {"kind": "moe", "experts": 4, "top_k": 2, "width": 8, "bias": True, "shared_width": 8},
        "position": {"kind": "learned", "length": 16},
        "per_layer": [{"layers": 1, "attention": {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 8}}],
        "tie_embeddings": False,
        "init": {"kind": "mup", "base_hidden": 8},
    }
)


def test_embeddings_and_norms_do_not_decay() -> None:
    """ARCH-16 (X): a step with zero gradient leaves the excluded parameters exactly as they were."""
    network = model()
    groups = {group["name"]: group for group in parameter_groups(network.named_parameters(), AdamW(), {})}
    assert groups["decay"]["names"] == ["layer.weight", "layer.bias"] and groups["decay"]["weight_decay"] == 0.1
    assert groups["no_decay"]["names"] == ["embedding.weight", "norm.weight"]
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = build_optimizer(network, AdamW(lr=0.1))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(network.named_parameters())
    assert torch.equal(after["embedding.weight"], before["embedding.weight"])
    assert torch.equal(after["norm.weight"], before["norm.weight"])
    assert torch.allclose(after["layer.weight"], before["layer.weight"] * (1 - 0.1 * 0.1))


def test_the_first_pattern_that_matches_decides_rate_and_decay() -> None:
    section = AdamW(
        lr=1.0,
        groups=(
            ParameterGroup(match=r"^layer\.weight$", lr_factor=0.5, weight_decay=0.3),
            ParameterGroup(match="layer", lr_factor=2),
            ParameterGroup(match="embedding", weight_decay=0.2),
        ),
    )
    groups = build_optimizer(model(), section).param_groups
    found = {group["names"][0]: (group["lr_factor"], group["lr"], group["weight_decay"]) for group in groups}
    assert [name for group in groups for name in group["names"]] == [
        "norm.weight",
        "layer.weight",
        "layer.bias",
        "embedding.weight",
    ]
    assert found == {
        "norm.weight": (1, 1, 0),
        "layer.weight": (0.5, 0.5, 0.3),
        "layer.bias": (2, 2, 0.1),
        "embedding.weight": (1, 1, 0.2),
    }


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            AdamW(no_decay=("embeding",)),
            "no_decay: 'embeding' is part of no parameter's name; names look like embedding",
        ),
        (AdamW(groups=(ParameterGroup(match="layers"),)), "groups.0.match: 'layers' matches no parameter's name"),
        (Muon(kind="muon", adamw=("embedding", "gate")), "adamw: 'gate' is part of no parameter's name"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(section: AdamW, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_optimizer(model(), section)


def test_a_rank_with_some_of_the_parameters_accepts_patterns_that_match_others() -> None:
    mine = [(name, parameter) for name, parameter in model().named_parameters() if name.startswith("layer")]
    section = AdamW(groups=(ParameterGroup(match="embedding", lr_factor=2),))
    everywhere = [name for name, _ in model().named_parameters()]
    assert [group["names"] for group in build_optimizer(mine, section, names=everywhere).param_groups] == [
        ["layer.weight", "layer.bias"]
    ]
    with pytest.raises(InputError, match="no_decay"):
        build_optimizer(mine, section)


def test_a_parameter_that_is_not_trained_has_no_group() -> None:
    network = model()
    network["layer"].bias.requires_grad_(False)
    assert "layer.bias" not in [
        name for group in build_optimizer(network, AdamW()).param_groups for name in group["names"]
    ]


def test_muon_takes_matrices_and_adamw_all_else() -> None:
    """OPT-02: hidden matrices, and each expert's; not embeddings, head, router, convolution, norms or biases."""
    groups = build_optimizer(Decoder(EXPERTS, 61), Muon(kind="muon")).param_groups
    kinds = {name: group["matrix"] for group in groups for name in group["names"]}
    assert sorted(kinds) == sorted(name for name, each in Decoder(EXPERTS, 61).named_parameters() if each.requires_grad)
    plain = {name for name, matrix in kinds.items() if not matrix}
    assert {"embedding.weight", "positions.weight", "head.weight", "layers.0.feedforward.router.weight"} <= plain
    assert {"layers.0.feedforward.experts.up_bias", "layers.1.attention.conv.weight"} <= plain
    assert not any(kinds[name] for name in kinds if "norm" in name or name.endswith("bias") or "a_log" in name)
    matrices = {name.removeprefix("layers.0.") for name in kinds if kinds[name] and name.startswith("layers.0.")}
    assert matrices == {
        *(f"attention.{name}.weight" for name in "qkvo"),
        *(f"feedforward.experts.{name}" for name in ("gate", "up", "down")),
        *(f"feedforward.shared.{name}.weight" for name in ("gate", "up", "down")),
    }


def test_words_of_the_users_own_keep_parameters_from_muon() -> None:
    groups = build_optimizer(model(), Muon(kind="muon", adamw=("embedding", "layer"))).param_groups
    assert not any(group["matrix"] for group in groups)


def test_under_mup_matrices_learn_slower_with_the_width_and_decay_as_before() -> None:
    """ARCH-18: Adam's table of Yang et al. 2022; lr * weight_decay stays what was tuned at the base width."""
    section = AdamW(no_decay=("embedding", "norm", "router", "positions"))
    groups = {group["name"]: group for group in build_optimizer(Decoder(EXPERTS, 61), section).param_groups}
    assert {name: (group["lr_factor"], group["weight_decay"]) for name, group in groups.items()} == {
        "decay": (1.0, 0.1),
        "no_decay": (1.0, 0.0),
        "decay x 0.25": (0.25, pytest.approx(0.4)),
        "no_decay x 0.25": (0.25, 0.0),
    }
    assert "head.weight" in groups["decay"]["names"]
    assert groups["no_decay x 0.25"]["names"][0] == "layers.0.feedforward.router.weight"
    assert groups["no_decay"]["names"][0] == "embedding.weight"
    assert "layers.0.feedforward.experts.up" in groups["decay x 0.25"]["names"]


@pytest.mark.parametrize(("adjust", "factor"), [("match_rms_adamw", 0.5), ("original", 1.0)])
def test_under_mup_a_step_of_muon_keeps_its_spectral_norm_at_every_width(adjust: str, factor: float) -> None:
    """Yang et al. 2023: that norm is 0.2 sqrt(width) lr where steps are matched to AdamW's, and lr as Jordan has it."""
    section = Muon(kind="muon", adjust_lr=adjust)
    groups = build_optimizer(Decoder(EXPERTS, 61), section).param_groups
    assert {group["lr_factor"] for group in groups if group["matrix"]} == {factor}
