"""`infra.micro_batch: auto`: how many windows a forward pass may take, measured on CUDA and estimated on a CPU."""

import gc
from contextlib import suppress

import torch

from smelt.errors import InputError
from smelt.model.balance import Balance
from smelt.model.measures import TokenMeans
from smelt.parallel.engine import Engine
from smelt.recipe.sections.model import Model
from smelt.train.loop import Training
from smelt.train.memory import available, forget_peak, largest_that_fits, naming_the_field, peak_memory

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
        size = measured(training, rows)
    return min(training.ranks.gather(size))


def measured(training: Training, rows: int) -> int:
    """The most of `rows` windows a pass that fit this rank, by what one takes and what two take."""
    one = _peak(training, 1, rows)
    two = _peak_of_two(training, rows) if rows > 1 else None
    if two is None:
        return 1
    return largest_that_fits(rows, one, two, available(training.engine.world.device) - _still_to_come(training))


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


def _peak_of_two(training: Training, rows: int) -> int | None:
    """`_peak` of two windows; None where they do not fit. Processes that have run apart cannot go on together."""
    peak = 0
    with suppress(InputError):
        peak = _peak(training, 2, rows)
    peaks = training.ranks.gather(peak)
    if all(peaks):
        return peak
    if any(peaks) or training.engine.world.layout.pipeline > 1:
        raise InputError(
            "infra.micro_batch: 'auto' has tried 2 windows at a time, which do not fit the memory of every process; "
            "set it to 1"
        )
    _give_up(training.engine)
    return None


def _peak(training: Training, size: int, rows: int) -> int:
    """Peak bytes of a step, without its update, on `size` windows a pass."""
    engine, device = training.engine, training.engine.world.device
    layout = engine.world.layout
    many = min(rows, size * 2 * layout.pipeline * layout.stages)
    tokens = torch.zeros(many, training.recipe.section("train").sequence, dtype=torch.int64, device=device)
    with naming_the_field(size):
        for _ in range(2):  # the first pass compiles, and fills what is made once
            forget_peak(device)
            engine.forward_backward(tokens, tokens.int(), tokens, size, torch.zeros((), device=device))
            engine.reduce_gradients()
    peak = peak_memory(device)
    _forget(engine)
    return peak


def _give_up(engine: Engine) -> None:
    """Leave nothing behind of a pass that broke off."""
    from torch.distributed.fsdp import FSDPModule

    for part in engine.parts:
        if isinstance(part, FSDPModule):
            part.reset_iter_state()
    _forget(engine)
    gc.collect()  # the error still holds what the pass had made
    torch.cuda.empty_cache()


def _forget(engine: Engine) -> None:
    """Leave nothing of a pass behind."""
    for _, parameter in engine.named_parameters():
        parameter.grad = None
    for part in engine.parts:
        for module in part.modules():
            if isinstance(module, Balance | TokenMeans):
                for counter in module.buffers():
                    counter.zero_()
