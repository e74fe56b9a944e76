"""Learning-rate schedules: step -> share of the peak, as pure functions."""

import math

from smelt.recipe.sections.train import WSD, Cosine, Train


def factor(schedule: Cosine | WSD, step: int, total: int) -> float:
    """Share of the peak learning rate at 0-based `step` of `total`; the first step has 1 / warmup_steps of it.

    Cosine follows Loshchilov & Hutter 2017 without restarts; WSD follows Hu et al. 2024 with linear decay.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    floor = schedule.min_lr_fraction
    if isinstance(schedule, Cosine):
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    decay = max(1, round(schedule.decay_fraction * total))
    left = (total - step) / decay if schedule.decay_fraction else 1.0
    return floor + (1 - floor) * min(1.0, max(0.0, left))


def learning_rate(train: Train, step: int) -> float:
    """Learning rate of the batch consumed at 0-based `step`.

    A stage with its own schedule restarts the clock for its own length; the run's schedule spans the other stages.
    """
    stage, first = train.stage_at(step)
    own = train.stages[stage].schedule
    if own is not None:
        return train.optimizer.lr * factor(own, step - first, train.steps_of(stage))
    shared = [index for index, each in enumerate(train.stages) if each.schedule is None]
    before = sum(train.steps_of(index) for index in shared if index < stage)
    total = sum(train.steps_of(index) for index in shared)
    return train.optimizer.lr * factor(train.schedule, before + step - first, total)
