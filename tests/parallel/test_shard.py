"""Sharding over data processes: precision, accumulation, whole weights cut to pieces, and settings that change."""

from typing import Any

import pytest
import torch
from reference import (
    DENSE,
    ROWS,
    batch,
    engine_of,
    gathered,
    gradients,
    gradients_of_one_process,
    own_rows,
    weights_are_those_of_one_process,
)

from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.recipe.sections.model import Model

MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 6, "chunk": 8}
MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 16, "bias": True, "activation": "clamped_swiglu"}
ODD = {**DENSE, "layers": 1, "hidden": 37, "attention": {"heads": 4, "kv_heads": 2, "head_dim": 6}}
MIXED = {**DENSE, "per_layer": [{"layers": 1, "attention": MAMBA2}, {"layers": "2:", "feedforward": MOE}]}


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_bfloat16_gradients_are_bit_for_bit_those_of_one_process(pool: Any, zero: int) -> None:
    """OPT-04: matrices travel in bfloat16, gradients accumulate and are reduced in float32, what is float32 stays so.

    One process takes as micro-batches the rows that two take at once, so that sums have the same terms.
    """
    expected = gradients_of_one_process(MIXED, torch.bfloat16, ROWS // 2)
    for found in pool(2, gradients, {"zero": zero}, MIXED, "bfloat16", ROWS // 2):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("zero", [1, 2])
def test_micro_batches_accumulate_in_float32(pool: Any, zero: int) -> None:
    """OPT-04: rank 0 takes rows 0-1, 2-3, rank 1 rows 4-5, 6-7; all is added up in float32."""
    expected = gradients_of_one_process(MIXED, torch.bfloat16, 2)
    for found in pool(2, gradients, {"zero": zero}, MIXED, "bfloat16", 2):
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def _dtypes() -> dict[str, torch.dtype]:
    engine, world = engine_of({"zero": 3}, MIXED, torch.bfloat16)
    seen: dict[str, torch.dtype] = {}
    for name, module in engine.model.named_modules():
        for own in module._parameters:
            module.register_forward_pre_hook(
                lambda module, args, name=name, own=own: seen.update(
                    {f"{name}.{own}": getattr(module._parameters[own], "dtype", None)}
                )
            )
    tokens, starts, targets = (own_rows(each, world) for each in batch(0))
    engine.model(tokens, starts=starts, targets=targets)
    return seen


def test_only_what_the_model_casts_travels_in_bfloat16(pool: Any) -> None:
    for seen in pool(2, _dtypes):
        narrow = {name for name, dtype in seen.items() if dtype == torch.bfloat16}
        assert {"layers.0.attention.q.weight", "layers.2.feedforward.experts.up", "layers.1.attention.out.weight"} <= (
            narrow
        )
        wide = {
            "layers.0.attention_norm.before.weight",
            "layers.1.attention.a_log",
            "layers.1.attention.conv.weight",
            "layers.2.feedforward.router.weight",
            "layers.2.feedforward.experts.up_bias",
            "norm.weight",
        }
        assert wide <= seen.keys() - narrow


def _loaded(layout: dict[str, Any]) -> bool:
    engine, _ = engine_of(layout, DENSE)
    other = Decoder(Model.model_validate(DENSE), 64)
    initialise(other, 7)
    whole = {name: parameter.detach() for name, parameter in other.named_parameters()}
    engine.load(whole.items())
    return all(torch.equal(gathered(p.detach()), whole[name]) for name, p in engine.named_parameters())


def test_whole_weights_are_cut_to_pieces(pool: Any) -> None:
    """A warm start in any layout: every process takes its part of a checkpoint's tensors."""
    assert all(pool(4, _loaded, {"tensor": 2, "zero": 3}))
    assert all(pool(2, _loaded, {"pipeline": 2}))


def _reconfigured(layout: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> list[float]:
    engine, world = engine_of(layout, before, torch.float64)
    engine.reconfigure(Model.model_validate(after))
    assert engine.config == Model.model_validate(after)
    tokens, starts, targets = (own_rows(each, world) for each in batch(0))
    weight = torch.ones((), dtype=torch.float64)
    sums = engine.forward_backward(tokens, starts, targets, len(tokens), weight)
    return [world.sum(sums.sum()).item(), engine.clip(1.0).item()]


def test_settings_of_the_model_change_in_every_layout(pool: Any) -> None:
    """ARCH-09, MID-01: what a stage sets reaches every process, and is what a model begun with it computes."""
    changed = {**DENSE, "attention": {**DENSE["attention"], "window": 5}, "position": {"kind": "rope", "theta": 5.0}}
    model = Decoder(Model.model_validate(changed), 64, torch.float64).double()
    initialise(model, 0)
    tokens, starts, targets = batch(0)
    total = model(tokens, starts=starts, targets=targets).sum()
    total.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    for ranks, layout in [(1, {}), (2, {"tensor": 2, "sequence_parallel": True}), (2, {"zero": 2})]:
        for found in pool(ranks, _reconfigured, layout, DENSE, changed):
            assert found == pytest.approx([total.item(), norm.item()], rel=1e-9)


def _odd(layout: dict[str, Any]) -> tuple[bool, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """With a vocabulary of 61: weights, gradients, and those of one process."""
    import reference

    usual, reference.VOCAB = reference.VOCAB, 61
    try:
        same = weights_are_those_of_one_process(layout, ODD)
        return same, gradients(layout, ODD), gradients_of_one_process(ODD)
    finally:
        reference.VOCAB = usual


def test_sizes_that_divide_nothing_are_cut_all_the_same(pool: Any) -> None:
    """Vocabulary and channels need not be multiples of any number of processes."""
    for layout in ({"zero": 3}, {"tensor": 2, "zero": 2}):
        for same, found, expected in pool(4, _odd, layout):
            assert same
            for name, gradient in expected.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
