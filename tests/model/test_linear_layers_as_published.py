"""Mamba-2 and Gated DeltaNet against the modules of transformers, with their weights."""

from typing import Any

import pytest
import torch
from linear_layers import HIDDEN, context, in_pieces, inputs, layer, scatter
from torch import Tensor

from smelt.recipe.parts.norm import Norm
from smelt.recipe.parts.part import Surroundings
from smelt.recipe.parts.position import NoPosition

COMMON = {"hidden_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24}
MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 6, "groups": 2, "norm_groups": 2}
AROUND = Surroundings(HIDDEN, NoPosition(kind="none"), Norm(eps=1e-3))  # large enough to show


def granite() -> tuple[torch.nn.Module, dict[str, Any]]:
    from transformers import AutoConfig
    from transformers.models.granitemoehybrid.modeling_granitemoehybrid import GraniteMoeHybridMambaLayer

    fields = {
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 6,
        "mamba_n_groups": 2,
        "mamba_proj_bias": True,
        "time_step_limit": (0.3, 1.1),
        "rms_norm_eps": 1e-3,
        "layer_types": ["mamba"],
    }
    config = AutoConfig.for_model("granitemoehybrid", **COMMON, num_hidden_layers=1, **fields)
    return GraniteMoeHybridMambaLayer(config, 0), {**MAMBA2, "bias": True, "dt_min": 0.3, "dt_max": 1.1}


def nemotron() -> tuple[torch.nn.Module, dict[str, Any]]:
    from transformers import AutoConfig
    from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer

    fields = {
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 6,
        "n_groups": 2,
        "conv_kernel": 3,
        "use_conv_bias": False,
        "time_step_min": 0.5,
        "layer_norm_epsilon": 1e-3,
        "layers_block_type": ["mamba"],
    }
    config = AutoConfig.for_model("nemotron_h", **COMMON, **fields)
    return NemotronHMamba2Mixer(config, 0), {**MAMBA2, "conv": 3, "conv_bias": False, "dt_min": 0.5}


def falcon(norm: bool, before: bool) -> tuple[torch.nn.Module, dict[str, Any]]:
    from transformers import AutoConfig
    from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1Mixer, compute_mup_vector

    scales = (0.5, 1.5, 0.7, 1.3, 0.9)
    fields = {
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 6,
        "mamba_n_groups": 2,
        "mamba_d_ssm": 32,
        "mamba_rms_norm": norm,
        "mamba_norm_before_gate": before,
        "mamba_proj_bias": True,
        "projectors_bias": True,
        "ssm_multipliers": list(scales),
        "rms_norm_eps": 1e-3,
    }
    config = AutoConfig.for_model("falcon_h1", **COMMON, num_hidden_layers=1, **fields)
    module = FalconH1Mixer(config, 0)
    module.mup_vector = compute_mup_vector(config)
    changes = {"gate_first": not before} if norm else {"norm": False, "norm_groups": 1}
    return module, {**MAMBA2, "bias": True, "scales": scales, **changes}


def qwen() -> tuple[torch.nn.Module, dict[str, Any]]:
    from transformers import AutoConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    fields = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 4,
        "linear_value_head_dim": 5,
        "rms_norm_eps": 1e-3,
        "layer_types": ["linear_attention"],
    }
    config = AutoConfig.for_model("qwen3_next", **COMMON, num_hidden_layers=1, **fields)
    mine = {"kind": "gated_deltanet", "key_heads": 2, "value_heads": 6, "key_dim": 4, "value_dim": 5}
    return Qwen3NextGatedDeltaNet(config, 0), mine


def unfused(theirs: dict[str, Tensor], fields: dict[str, Any]) -> dict[str, Tensor]:
    """Their parameters, or the gradients of them, under our names."""
    return _delta(theirs) if fields["kind"] == "gated_deltanet" else _mamba(theirs)


def _mamba(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    mine = {"a_log": theirs["A_log"], "dt_bias": theirs["dt_bias"], "d": theirs["D"]}
    mine |= {"conv.weight": theirs["conv1d.weight"].squeeze(1), "out.weight": theirs["out_proj.weight"]}
    renamed = {"conv1d.bias": "conv.bias", "norm.weight": "norm.weight", "out_proj.bias": "out.bias"}
    mine |= {new: theirs[old] for old, new in renamed.items() if old in theirs}
    for kind in ("weight", "bias"):
        if f"in_proj.{kind}" in theirs:
            parts = theirs[f"in_proj.{kind}"].split((32, 32, 12, 12, 4))
            mine |= {f"{name}.{kind}": part for name, part in zip(("gate", "x", "b", "c", "dt"), parts, strict=True)}
    return mine


def _delta(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    mine = {"a_log": theirs["A_log"], "dt_bias": theirs["dt_bias"], "norm.weight": theirs["norm.weight"]}
    mine |= {"conv.weight": theirs["conv1d.weight"].squeeze(1), "out.weight": theirs["out_proj.weight"]}
    for fused, names, sizes in (("qkvz", ("q", "k", "v", "gate"), (4, 4, 15, 15)), ("ba", ("b", "a"), (3, 3))):
        parts = theirs[f"in_proj_{fused}.weight"].unflatten(0, (2, -1)).split(sizes, 1)
        mine |= {f"{name}.weight": part.flatten(0, 1) for name, part in zip(names, parts, strict=True)}
    return mine


@pytest.mark.parametrize(
    "make",
    [
        granite,
        nemotron,
        lambda: falcon(norm=True, before=False),
        lambda: falcon(norm=True, before=True),
        lambda: falcon(norm=False, before=False),
        qwen,
    ],
    ids=["granite", "nemotron", "falcon", "falcon-norm-first", "falcon-no-norm", "qwen"],
)
def test_outputs_and_gradients_are_those_of_transformers(make: Any) -> None:
    """ARCH-25: in float32, over chunks and lengths that fit each other or not, and token by token."""
    theirs, fields = make()
    scatter(theirs, std=0.3)
    for sequence, chunk in ((1, 4), (13, 4), (32, 8), (37, 256)):
        mine = layer({**fields, "chunk": chunk}, AROUND)
        mine.load_state_dict(unfused(dict(theirs.named_parameters()), fields))
        x = inputs(2, sequence).requires_grad_()
        expected, out = theirs(x), mine(x, context(x), None)
        torch.testing.assert_close(out, expected, rtol=0, atol=2e-5)
        pull = inputs(2, sequence, "pull")
        other = torch.autograd.grad((expected * pull).sum(), [x, *theirs.parameters()])
        own = torch.autograd.grad((out * pull).sum(), [x, *mine.parameters()])
        torch.testing.assert_close(own[0], other[0], rtol=1e-3, atol=1e-4)
        names = [name for name, _ in theirs.named_parameters()]
        wanted = unfused(dict(zip(names, other[1:], strict=True)), fields)
        for (name, _), gradient in zip(mine.named_parameters(), own[1:], strict=True):
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-4 * (1 + float(gradient.abs().max())))
        torch.testing.assert_close(in_pieces(mine, x, None, [1] * sequence), expected, rtol=0, atol=1e-4)
