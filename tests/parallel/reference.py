"""Twenty steps of training in any layout, and in a plain PyTorch loop that knows nothing of layouts."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from smelt.model.balance import after_step
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.parallel.engine import Engine, build_engine
from smelt.parallel.world import World, start
from smelt.recipe.layout import resolve_layout
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import Model

VOCAB, ROWS, SEQUENCE, STEPS, CLIP = 64, 8, 32, 20, 0.5
CPU = torch.device("cpu")
DENSE: dict[str, Any] = {
    "hidden": 32,
    "layers": 4,
    "attention": {"heads": 4, "kv_heads": 2, "qk_norm": "head"},
    "position": {"kind": "rope", "theta": 1000.0},
    "feedforward": {"width": 48},
    "init": {"kind": "normal", "std": 0.1},
}


def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, starts and targets of a step: documents of uneven length, some targets ignored."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, VOCAB, (ROWS, SEQUENCE + 1), generator=generator)
    cuts = torch.rand(ROWS, SEQUENCE, generator=generator) < 0.1
    cuts[:, 0] = True
    places = torch.arange(SEQUENCE).expand(ROWS, -1)
    starts = places.where(cuts, 0).cummax(1).values.to(torch.int32)
    targets = tokens[:, 1:].clone()
    targets[torch.rand(ROWS, SEQUENCE, generator=generator) < 0.2] = -100
    targets[0, :20] = -100  # rows differ in how many count
    return tokens[:, :-1].contiguous(), starts, targets


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1, fused=True)


def plain(model: dict[str, Any], dtype: torch.dtype, micro_batch: int = 2) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of a plain loop on one process."""
    decoder = Decoder(Model.model_validate(model), VOCAB, dtype)
    if dtype == torch.float64:
        decoder.double()
    initialise(decoder, 0)
    optimizer = adam(decoder.parameters())
    losses, norms = [], []
    for step in range(STEPS):
        tokens, starts, targets = batch(step)
        valid = (targets >= 0).sum()
        total = 0.0
        for first in range(0, ROWS, micro_batch):
            part = slice(first, first + micro_batch)
            each = decoder(tokens[part], starts=starts[part], targets=targets[part])
            (each.sum() / valid).backward()
            total += each.detach().double().sum().item()
        norms.append(torch.nn.utils.clip_grad_norm_(decoder.parameters(), CLIP).item())
        optimizer.step()
        optimizer.zero_grad()
        after_step(decoder)
        losses.append(total / valid.item())
    return losses, norms


def spread(
    layout: dict[str, Any], model: dict[str, Any], dtype: str, micro_batch: int = 2, **infra: Any
) -> tuple[list[float], list[float]]:
    """The same in a layout, called on every rank of a pool."""
    engine, world = engine_of(layout, model, getattr(torch, dtype), **infra)
    optimizer = adam([parameter for _, parameter in engine.named_parameters() if parameter.requires_grad])
    losses, norms = [], []
    for step in range(STEPS):
        tokens, starts, targets = (own_rows(each, world) for each in batch(step))
        valid = (batch(step)[2] >= 0).sum()
        sums = engine.forward_backward(tokens, starts, targets, micro_batch, 1.0 / valid.double())
        engine.reduce_gradients()
        norms.append(engine.clip(CLIP).item())
        optimizer.step()
        optimizer.zero_grad()
        for part in engine.parts:
            after_step(part)
        losses.append((world.sum(sums.sum()) / valid).item())
    return losses, norms


def engine_of(
    layout: dict[str, Any], model: dict[str, Any], dtype: torch.dtype = torch.float32, **infra: Any
) -> tuple[Engine, World]:
    """A new engine on this rank of a pool."""
    world = World.of_environment(CPU)
    settings = Infra.model_validate({"layout": layout, **infra})
    start(world, resolve_layout(settings.layout, world.ranks))
    return build_engine(Model.model_validate(model), VOCAB, dtype, 0, settings, world), world


def own_rows(whole: Tensor, world: World) -> Tensor:
    """The rows of a batch that this rank reads."""
    return whole.chunk(world.data_ranks)[world.data_rank]


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a parameter or gradient, on every process of its mesh."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def weights_are_those_of_one_process(layout: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether every parameter of a new engine, put together, has the bytes that a plain decoder begins with."""
    engine, _ = engine_of(layout, model)
    alone = Decoder(Model.model_validate(model), VOCAB)
    initialise(alone, 0)
    whole = dict(alone.named_parameters())
    return all(torch.equal(gathered(parameter.detach()), whole[name]) for name, parameter in engine.named_parameters())


def gradients_of_one_process(
    model: dict[str, Any], dtype: torch.dtype = torch.float64, micro_batch: int = ROWS
) -> dict[str, Tensor]:
    """Gradients of the mean loss of one batch of every parameter of a plain decoder."""
    decoder = Decoder(Model.model_validate(model), VOCAB, dtype)
    if dtype == torch.float64:
        decoder.double()
    initialise(decoder, 0)
    tokens, starts, targets = batch(0)
    for first in range(0, ROWS, micro_batch):
        part = slice(first, first + micro_batch)
        losses = decoder(tokens[part], starts=starts[part], targets=targets[part])
        (losses.sum() / (targets >= 0).sum()).backward()
    return {name: parameter.grad for name, parameter in decoder.named_parameters() if parameter.grad is not None}


def gradients(
    layout: dict[str, Any], model: dict[str, Any], dtype: str = "float64", micro_batch: int = ROWS
) -> dict[str, Tensor]:
    """The same in a layout, put together on every rank."""
    engine, world = engine_of(layout, model, getattr(torch, dtype))
    tokens, starts, targets = (own_rows(each, world) for each in batch(0))
    engine.forward_backward(tokens, starts, targets, micro_batch, 1.0 / (batch(0)[2] >= 0).sum().double())
    engine.reduce_gradients()
    named = engine.named_parameters()
    return {name: gathered(parameter.grad) for name, parameter in named if parameter.grad is not None}
