"""Learning-rate schedules: step -> share of the peak, as pure functions."""

import math
from bisect import bisect_left

from smelt.recipe.plan import Clock, Plan
from smelt.recipe.sections.schedule import WSD, Cosine, DeepSeekV3, MultiStep

_DECAY = 0.1


def learning_rate(plan: Plan, step: int) -> float:
    """Learning rate of the batch consumed at 0-based `step`, the batch warmup's scaling included.

    A stage with its own schedule restarts the clock for its own length; the run's schedule spans the other stages.
    """
    segment = plan.at(step)
    peak: float = segment.train.optimizer.lr
    return peak * segment.lr_factor * factor(segment.clock, segment.elapsed + step - segment.first)


def factor(clock: Clock, step: int) -> float:
    """Share of the peak learning rate at step `step` of a clock; the first step has 1 / warmup_steps of it."""
    schedule = clock.schedule
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if isinstance(schedule, Cosine):
        return _cosine(schedule, clock, step)
    if isinstance(schedule, WSD):
        return _wsd(schedule, clock, step)
    if isinstance(schedule, MultiStep):
        return _multi_step(schedule, clock, step)
    return _deepseek_v3(schedule, clock, step)


def leaves_peak(clock: Clock) -> int:
    """The first step behind the warmup at which the learning rate is below its peak."""
    steps = range(clock.schedule.warmup_steps, clock.steps)
    return steps.start + bisect_left(steps, True, key=lambda step: factor(clock, step) < 1)


def _cosine(schedule: Cosine, clock: Clock, step: int) -> float:
    """Loshchilov & Hutter 2017, without restarts."""
    done = _share(clock, step, clock.tokens_before(schedule.warmup_steps), clock.tokens)
    return schedule.min_lr_fraction + (1 - schedule.min_lr_fraction) * _half_cosine(done)


def _wsd(schedule: WSD, clock: Clock, step: int) -> float:
    """Hu et al. 2024, with a linear decay; or one minus the square root, Haegele et al. 2024."""
    decay = _decay_tokens(schedule, clock)
    left = min(1.0, max(0.0, (clock.tokens - clock.tokens_before(step)) / decay)) if decay else 1.0
    shape = left if schedule.decay == "linear" else 1 - math.sqrt(1 - left)
    return schedule.min_lr_fraction + (1 - schedule.min_lr_fraction) * shape


def _decay_tokens(schedule: WSD, clock: Clock) -> int:
    """Tokens of the decay, in whole batches of those at the clock's end."""
    if schedule.decay_steps is not None:
        return clock.tokens - clock.tokens_before(max(0, clock.steps - schedule.decay_steps))
    share = _DECAY if schedule.decay_fraction is None else schedule.decay_fraction
    batch = clock.batches[-1][1]
    return max(1, round(share * (clock.tokens / batch))) * batch if share else 0


def _multi_step(schedule: MultiStep, clock: Clock, step: int) -> float:
    """DeepSeek LLM, 2024."""
    passed = sum(clock.tokens_before(step) >= _at(clock, milestone) for milestone in schedule.milestones)
    return schedule.factors[passed - 1] if passed else 1.0


def _deepseek_v3(schedule: DeepSeekV3, clock: Clock, step: int) -> float:
    """DeepSeek-V3 2024, section 4.2."""
    constant, cosine, floor = (
        _at(clock, moment) for moment in (schedule.constant_until, schedule.cosine_until, schedule.floor_until)
    )
    now = clock.tokens_before(step)
    if now >= floor:
        return schedule.last
    done = _share(clock, step, constant, cosine)
    return schedule.floor + (1 - schedule.floor) * _half_cosine(done)


def _at(clock: Clock, moment: float) -> float:
    """The tokens before a point of the schedule: a share of all, or a number of steps."""
    return moment * clock.tokens if moment < 1 else clock.tokens_before(int(moment))


def _share(clock: Clock, step: int, start: float, end: float) -> float:
    """How much of the tokens from `start` to `end` lies behind a step, 0 to 1."""
    return min(1.0, max(0.0, (clock.tokens_before(step) - start) / max(1, end - start)))


def _half_cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))
