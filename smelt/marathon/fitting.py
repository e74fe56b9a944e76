"""`infra.micro_batch: auto`: how many windows a forward pass may take, measured on CUDA and estimated on a CPU."""

import torch

from smelt.model.balance import Balance
from smelt.model.measures import TokenMeans
from smelt.parallel.engine import Engine
from smelt.recipe.sections.model import Model
from smelt.train.loop import Training
from smelt.train.memory import available, largest_that_fits, naming_the_field, peak_memory

CPU_TOKENS = 4096  # a pass over more of them is no faster on a CPU
REMEMBERED = 40  # numbers a layer keeps of a token for the backward pass, for each of its hidden channels
OPTIMIZER = 2  # states of a parameter's size that appear with the first step


def fitted(training: Training) -> int:
    """The micro-batch of all ranks, in windows of `train.sequence`; every rank takes part."""
    world, recipe = training.engine.world, training.recipe
    train = recipe.section("train")
    largest = max(segment.batch_tokens for segment in training.plan.segments)
    rows = max(1, largest // train.sequence // world.data_ranks)
    if world.device.type == "cpu":
        size = _estimated(recipe.section("model"), train.sequence, training.dtype, rows, world.ranks)
    else:
        one, two = (_measured(training, size, rows) for size in (1, min(2, rows)))
        size = largest_that_fits(rows, one, two, available(world.device) - _still_to_come(training))
    return min(training.ranks.gather(size))


def _estimated(model: Model, sequence: int, dtype: torch.dtype, rows: int, ranks: int) -> int:
    a_token = model.layers * model.hidden * REMEMBERED * dtype.itemsize
    fits = available(torch.device("cpu")) // 2 // ranks // (a_token * sequence)
    size = 1
    while 2 * size <= min(rows, fits, max(1, CPU_TOKENS // sequence)):
        size *= 2
    return size


def _still_to_come(training: Training) -> int:
    if training.optimizer.state:
        return 0
    held = (
        getattr(each, "_local_tensor", each) for _, each in training.engine.named_parameters() if each.requires_grad
    )
    return OPTIMIZER * sum(each.nbytes for each in held)


def _measured(training: Training, size: int, rows: int) -> int:
    """Peak bytes of a step, without its update, on `size` windows a pass."""
    engine, device = training.engine, training.engine.world.device
    layout = engine.world.layout
    many = min(rows, size * 2 * layout.pipeline * layout.stages)
    tokens = torch.zeros(many, training.recipe.section("train").sequence, dtype=torch.int64, device=device)
    with naming_the_field(size):
        for _ in range(2):  # the first pass compiles, and fills what is made once
            torch.cuda.reset_peak_memory_stats(device)
            engine.forward_backward(tokens, tokens.int(), tokens, size, torch.zeros((), device=device))
            engine.reduce_gradients()
    peak = peak_memory(device)
    _forget(engine)
    return peak


def _forget(engine: Engine) -> None:
    """Leave nothing of a pass behind."""
    for _, parameter in engine.named_parameters():
        parameter.grad = None
    for part in engine.parts:
        for module in part.modules():
            if isinstance(module, Balance | TokenMeans):
                for counter in module.buffers():
                    counter.zero_()
