"""Tensor parallelism cuts every kind of layer so that gradients are those of one process."""

from typing import Any

import pytest
import torch
from reference import DENSE, VOCAB, gradients, gradients_of_one_process

from smelt.model.decoder import Decoder
from smelt.recipe.sections.model import Model

GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}
LINEAR = {"kind": "linear", "heads": 2, "key_dim": 8, "value_dim": 12, "chunk": 8}
GATES = ["none", "lightning", "mamba", "mamba2", "mlstm", "dfw", "gateloop", "hgrn2", "gla"]
MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 6, "chunk": 8}
DELTANET = {"kind": "gated_deltanet", "key_heads": 2, "value_heads": 4, "key_dim": 6, "value_dim": 8, "chunk": 8}
MLA = {"kind": "mla", "heads": 4, "kv_rank": 8, "nope_dim": 6, "rope_dim": 4, "value_dim": 10}
MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 16}
BRANCHES = [{"mixer": MAMBA2}, {"mixer": {**GQA, "window": 5}, "input_scale": 2.0, "output_scale": 0.5}]
MIXERS: dict[str, Any] = {
    "gqa, norms of heads, sinks": {**GQA, "qk_norm": "head", "sinks": True, "bias": "all"},
    "gqa, norms of all": {**GQA, "qk_norm": "full", "gate": "channel", "bias": "qkv"},
    "gqa, gates of heads": {**GQA, "gate": "head", "head_dim": 12, "window": 7},
    "mla": MLA,
    "mla, queries compressed": {**MLA, "q_rank": 10},
    "mamba2, one group": {**MAMBA2, "bias": True},
    "mamba2, groups": {**MAMBA2, "groups": 2, "norm_groups": 2, "gate_first": False},
    "mamba2, no norm": {**MAMBA2, "groups": 4, "norm": False, "scales": [1, 2, 1, 0.5, 1]},
    "deltanet": DELTANET,
    "side by side": {"kind": "parallel", "branches": BRANCHES},
    **{f"linear, {gate}": {**LINEAR, "gate": gate, "output_gate": gate == "gla"} for gate in GATES},
}
FEEDFORWARDS: dict[str, Any] = {
    "geglu": {"kind": "geglu", "width": 48, "bias": True, "output_scale": 0.5},
    "relu2": {"kind": "relu2", "width": 48, "bias": True},
    "experts": {**MOE, "balance": {"kind": "loss", "weight": 0.1}, "z_loss": 0.1, "shared_width": 8},
    "biased experts": {**MOE, "bias": True, "activation": "clamped_swiglu", "shared_width": 8, "shared_gate": True},
}
WHOLE: dict[str, Any] = {
    "multi-token": {"multi_token": {"depth": 2}, "z_loss": 0.01},
    "learned positions": {"position": {"kind": "learned", "length": 32}, "tie_embeddings": False},
    "alibi": {"position": {"kind": "alibi"}, "norm": {"placement": "sandwich", "zero_centered": True}},
    "scales": {"embedding_scale": 2.0, "residual_scale": 0.5, "logit_softcap": 3.0},
}
MODELS = {
    **{name: {**DENSE, "layers": 1, "attention": mixer} for name, mixer in MIXERS.items()},
    **{name: {**DENSE, "layers": 1, "feedforward": part} for name, part in FEEDFORWARDS.items()},
    **{name: {**DENSE, "layers": 1, **fields} for name, fields in WHOLE.items()},
}


@pytest.mark.parametrize("pieces", [False, True], ids=["tensor", "tensor and sequence"])
def test_gradients_of_every_kind_of_layer_are_those_of_one_process(pool: Any, pieces: bool) -> None:
    """INFRA-05: parameters put together have the same gradients, each counted once."""
    cases = {name: ({"tensor": 2, "sequence_parallel": pieces}, model) for name, model in MODELS.items()}
    for results in pool(2, _all, cases):
        for name, model in MODELS.items():
            expected = gradients_of_one_process(model)
            assert results[name].keys() == expected.keys()
            for key, gradient in expected.items():
                torch.testing.assert_close(results[name][key], gradient, rtol=1e-6, atol=1e-9, msg=f"{name}: {key}")


def _all(cases: dict[str, Any]) -> dict[str, Any]:
    return {name: gradients(*case) for name, case in cases.items()}


def test_every_process_holds_its_share_of_every_matrix(pool: Any) -> None:
    """No process ever holds a whole matrix, nor a whole table, of what is cut."""
    whole = {name: p.numel() for name, p in Decoder(Model.model_validate(DENSE), VOCAB).named_parameters()}
    for sizes in pool(4, _sizes, {"tensor": 2, "zero": 3}):
        assert {name: 4 * size for name, size in sizes.items() if "norm" not in name} == {
            name: size for name, size in whole.items() if "norm" not in name
        }


def _sizes(layout: dict[str, Any]) -> dict[str, int]:
    from reference import engine_of

    engine, _ = engine_of(layout, DENSE)
    return {name: parameter.to_local().numel() for name, parameter in engine.named_parameters()}
