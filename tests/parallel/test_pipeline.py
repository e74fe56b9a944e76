"""A pipeline trains exactly as one process does, whatever its schedule and whatever else the layout holds."""

from functools import cache
from typing import Any

import pytest
import torch
from reference import DENSE, ROWS, VOCAB, batch, engine_of, gathered, own_rows, plain, spread
from torch import Tensor

from smelt.errors import InputError
from smelt.model.balance import after_step
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.measures import totals
from smelt.recipe.sections.model import Model

STAGES = {"gpipe": 1, "1f1b": 1, "interleaved": 2, "looped_bfs": 2, "zero_bubble": 1, "zbv": 2, "dualpipev": 2}
BUSY = {"kind": "moe", "experts": 4, "top_k": 2, "width": 16, "balance": {"kind": "loss", "weight": 0.1}}
LEARNED = {"position": {"kind": "learned", "length": 40}, "embedding_scale": 2.0, "logit_softcap": 5.0}
MODELS: dict[str, dict[str, Any]] = {
    "plain": DENSE,
    "untied": {**DENSE, "tie_embeddings": False, "z_loss": 1e-3},
    "experts": {**DENSE, "feedforward": {**BUSY, "z_loss": 0.01}},
    "further tokens": {**DENSE, "multi_token": {"depth": 2, "weight": 0.3}},
    "further token, untied": {**DENSE, "multi_token": {"depth": 1}, "tie_embeddings": False},
    "learned positions": {**DENSE, **LEARNED},
    "recurrent": {**DENSE, "attention": {"kind": "mamba2", "heads": 4, "head_dim": 8, "state": 6, "chunk": 8}},
}
TOGETHER: dict[str, tuple[str, dict[str, Any]]] = {
    "four stages": ("zero_bubble", {"pipeline": 4}),
    "gathering": ("1f1b", {"zero": 3}),
    "sharded": ("zero_bubble", {"zero": 2}),
    "replicated": ("interleaved", {"replicate": 2}),
    "tensor and sequence": ("zbv", {"tensor": 2, "sequence_parallel": True}),
    "context": ("dualpipev", {"context": 2}),
}

SLOW = ("replicated", "context")  # of four processes


def layout(schedule: str, **others: Any) -> dict[str, Any]:
    return {"pipeline": 2, "schedule": schedule, "stages": STAGES[schedule], **others}


@cache
def expected(model: str, dtype: str) -> tuple[list[float], list[float]]:
    return plain(MODELS[model], getattr(torch, dtype))


def agree(pool: Any, ranks: int, of: dict[str, Any], model: str = "plain", dtype: str = "float64") -> None:
    micro_batch = 1 if ranks > of["pipeline"] else 2
    for result in pool(ranks, spread, of, MODELS[model], dtype, micro_batch):
        for ours, theirs in zip(result, expected(model, dtype), strict=True):
            assert ours == pytest.approx(theirs, rel={"float64": 1e-9, "float32": 1e-4}[dtype], abs=0)


@pytest.mark.parametrize("schedule", STAGES)
def test_twenty_steps_under_each_schedule_are_those_of_one_process(pool: Any, schedule: str) -> None:
    """INFRA-05, OPT-12: losses and gradient norms against a plain PyTorch loop, the head tied to the embedding."""
    agree(pool, 2, layout(schedule))


def test_so_they_are_in_single_precision(pool: Any) -> None:
    agree(pool, 2, layout("zero_bubble"), dtype="float32")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TOGETHER]
)
def test_and_together_with_every_other_way_to_spread_a_model(pool: Any, name: str) -> None:
    schedule, others = TOGETHER[name]
    agree(pool, 4, layout(schedule, **others))


PAIRS = {
    "1f1b": ["experts", "further tokens", "recurrent"],
    "zbv": ["experts", "further token, untied", "untied", "learned positions"],
}


@pytest.mark.parametrize(("schedule", "model"), [(key, each) for key in PAIRS for each in PAIRS[key]])
def test_and_for_models_whose_loss_or_weights_are_not_in_one_place(pool: Any, model: str, schedule: str) -> None:
    """Auxiliary losses of middle stages have the weight they have in one process; embeddings serve two stages."""
    agree(pool, 2, layout(schedule), model)


def held(of: dict[str, Any], model: dict[str, Any]) -> list[tuple[str, Tensor]]:
    engine, _ = engine_of(of, model)
    return [(name, gathered(parameter.detach())) for name, parameter in engine.named_parameters()]


@pytest.mark.parametrize("model", ["plain", "further token, untied"])
@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zbv"])
def test_every_parameter_is_held_once_and_begins_as_in_one_process(pool: Any, schedule: str, model: str) -> None:
    """MARA-06: names and bytes; a second tensor of the embedding is nobody's to optimise or save."""
    alone = Decoder(Model.model_validate(MODELS[model]), VOCAB)
    initialise(alone, 0)
    found = [each for rank in pool(2, held, layout(schedule), MODELS[model]) for each in rank]
    assert sorted(name for name, _ in found) == sorted(name for name, _ in alone.named_parameters())
    for name, value in found:
        assert torch.equal(value, alone.get_parameter(name)), name


def gradients_of(of: dict[str, Any], dtype: str, shapes: list[tuple[int, int, bool]]) -> list[dict[str, Tensor]]:
    """This rank's gradients for batches of different shapes, with documents or without."""
    engine, world = engine_of(of, DENSE, getattr(torch, dtype))
    found = []
    for rows, sequence, documents in shapes:
        tokens, starts, targets = (own_rows(each[:rows, :sequence], world) for each in batch(0))
        weight = torch.tensor(1 / 64)
        engine.forward_backward(tokens, starts if documents else None, targets, 2, weight)
        engine.reduce_gradients()
        found.append({name: gathered(parameter.grad).clone() for name, parameter in engine.named_parameters()})
        for _, parameter in engine.named_parameters():
            parameter.grad = None
    return found


def gradients_alone(dtype: torch.dtype, rows: int, sequence: int, documents: bool) -> dict[str, Tensor]:
    model = Decoder(Model.model_validate(DENSE), VOCAB, dtype)
    initialise(model, 0)
    for first in range(0, rows, 2):
        tokens, starts, targets = (each[:rows, :sequence][first : first + 2] for each in batch(0))
        (model(tokens, starts=starts if documents else None, targets=targets).sum() / 64).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_batches_may_change_their_shape_from_step_to_step(pool: Any) -> None:
    """OPT-14, MID-01: batch warm-up and stages of longer sequences."""
    shapes = [(ROWS, 32, True), (4, 32, True), (ROWS, 16, False), (ROWS, 32, True)]
    ranks = pool(2, gradients_of, layout("1f1b"), "float32", shapes)
    for index, shape in enumerate(shapes):
        wanted = gradients_alone(torch.float32, *shape)
        for name, gradient in [each for rank in ranks for each in rank[index].items()]:
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("schedule", ["1f1b", "zero_bubble"])
def test_gradients_in_bfloat16_add_up_in_float32(pool: Any, schedule: str) -> None:
    """As on one process to the last bits, though micro-batches pass twice under a zero-bubble schedule."""
    shape = (ROWS, 32, True)
    wanted = gradients_alone(torch.bfloat16, *shape)
    for (found,) in pool(2, gradients_of, layout(schedule), "bfloat16", [shape]):
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-7)


def recomputed(of: dict[str, Any], amount: str) -> tuple[list[float], list[float]]:
    return spread(of, DENSE, "float64", 2, recompute=amount)


@pytest.mark.parametrize(("schedule", "amount"), [("1f1b", "selective"), ("zbv", "full")])
def test_layers_that_are_computed_again_give_the_same(pool: Any, schedule: str, amount: str) -> None:
    """INFRA-05."""
    for result in pool(2, recomputed, layout(schedule), amount):
        for ours, theirs in zip(result, expected("plain", "float64"), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9, abs=0)


def counted(of: dict[str, Any], model: dict[str, Any]) -> tuple[Any, list[str]]:
    engine, world = engine_of(of, model)
    tokens, starts, targets = (own_rows(each, world) for each in batch(0))
    engine.forward_backward(tokens, starts, targets, 2, torch.tensor(1.0))
    uses = engine.of_all_layers([use for part in engine.parts for use in after_step(part)])
    return [use.load for use in uses], [name for part in engine.parts for name in totals(part)]


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved"])
def test_every_process_can_tell_how_every_layer_used_its_experts(pool: Any, schedule: str) -> None:
    model = {**MODELS["experts"], "multi_token": {"depth": 1}}
    alone = Decoder(Model.model_validate(model), VOCAB)
    initialise(alone, 0)
    tokens, starts, targets = batch(0)
    for first in range(0, ROWS, 2):
        part = slice(first, first + 2)
        alone(tokens[part], starts=starts[part], targets=targets[part])
    wanted = [use.load for use in after_step(alone)]
    ranks = pool(2, counted, layout(schedule), model)
    for loads, _ in ranks:
        torch.testing.assert_close(loads, wanted)
    assert sorted(name for _, names in ranks for name in names) == sorted(totals(alone))


def turned(of: dict[str, Any], theta: float) -> Tensor:
    """The loss after a change of the rotations, of weights that were loaded."""
    engine, world = engine_of(of, DENSE)
    other = Decoder(Model.model_validate(DENSE), VOCAB)
    initialise(other, 1)
    engine.load(other.state_dict().items())
    tokens, starts, targets = batch(0)
    engine.forward_backward(tokens, starts, targets, 2, torch.tensor(1.0))
    engine.reconfigure(Model.model_validate({**DENSE, "position": {"kind": "rope", "theta": theta}}))
    assert engine.config.position.theta == theta
    return world.sum(engine.forward_backward(tokens, starts, targets, 2, torch.tensor(1.0)).sum())


@pytest.mark.parametrize("schedule", ["1f1b", "zbv"])
def test_weights_are_loaded_and_stages_of_training_change_the_model(pool: Any, schedule: str) -> None:
    """MID-01."""
    alone = Decoder(Model.model_validate({**DENSE, "position": {"kind": "rope", "theta": 50.0}}), VOCAB)
    initialise(alone, 1)
    tokens, starts, targets = batch(0)
    wanted = alone(tokens, starts=starts, targets=targets).double().sum()
    for found in pool(2, turned, layout(schedule), 50.0):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-6, atol=0)


def beyond(of: dict[str, Any]) -> str:
    short = {**DENSE, "position": {"kind": "learned", "length": 20}}
    engine, world = engine_of(of, short)
    tokens, starts, targets = batch(1)
    weight = torch.tensor(1.0)
    engine.forward_backward(tokens, starts, targets, 2, weight)
    if world.rank > 0:
        return ""
    engine.shared = None  # the other rank has left
    try:
        engine.forward_backward(tokens, torch.zeros_like(starts), targets, 2, weight)
    except InputError as error:
        return str(error)
    return "nothing was raised"


def test_a_mistake_that_a_stage_finds_is_told_as_what_it_is(pool: Any) -> None:
    """Torch wraps it in an error of its own, with all tensors and the schedule."""
    assert "longer than model.position.length" in pool(2, beyond, layout("1f1b"))[0]
