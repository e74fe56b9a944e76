"""How the learning rate and the batch size change over a run."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count, CountOrZero, Moment


class _Warming(Section):
    kind: str
    warmup_steps: CountOrZero = 2000


class Cosine(_Warming):
    """Linear warmup, then half a cosine from the peak down to `min_lr_fraction` of it at the last step."""

    kind: Literal["cosine"]
    min_lr_fraction: float = Field(default=0.1, ge=0, le=1)


class WSD(_Warming):
    """Warmup, stable, decay: linear warmup, the peak, then down to `min_lr_fraction` over the last `decay_steps`, or
    the last `decay_fraction` of the tokens (a tenth where neither is given).

    `decay` is a straight line, or `sqrt`: one minus the root of the share of the decay that is done.
    """

    kind: Literal["wsd"] = "wsd"
    decay_fraction: float | None = Field(default=None, ge=0, le=1)
    decay_steps: CountOrZero | None = None
    decay: Literal["linear", "sqrt"] = "linear"
    min_lr_fraction: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_length(self) -> "WSD":
        if self.decay_steps is not None and self.decay_fraction is not None:
            raise ValueError("give decay_fraction or decay_steps, not both")
        return self


class MultiStep(_Warming):
    """The peak until the first milestone, then `factors` of the peak from each milestone on (DeepSeek LLM 2024)."""

    kind: Literal["multi_step"]
    milestones: tuple[Moment, ...] = Field(default=(0.8, 0.9), min_length=1)
    factors: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.316, 0.1)

    @model_validator(mode="after")
    def _fits(self) -> "MultiStep":
        if len(self.milestones) != len(self.factors):
            raise ValueError(
                f"factors needs one number a milestone, got {len(self.factors)} for {len(self.milestones)}"
            )
        _check_ascending("milestones", self.milestones)
        return self


class DeepSeekV3(_Warming):
    """The peak until `constant_until`, half a cosine down to the share `floor` of it at `cosine_until`, that until
    `floor_until`, and the share `last` for the rest (DeepSeek-V3 2024, which has 10T, 14.3T and 14.633T of 14.8T
    tokens)."""

    kind: Literal["deepseek_v3"]
    constant_until: Moment = 0.67
    cosine_until: Moment = 0.97
    floor_until: Moment = 0.99
    floor: float = Field(default=0.1, ge=0, le=1)
    last: float = Field(default=0.0332, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> "DeepSeekV3":
        _check_ascending(
            "constant_until, cosine_until, floor_until", (self.constant_until, self.cosine_until, self.floor_until)
        )
        if self.last > self.floor:
            raise ValueError(f"last ({self.last:g}) must be at most the floor ({self.floor:g})")
        return self


Schedule = Annotated[Cosine | WSD | MultiStep | DeepSeekV3, Field(discriminator="kind")]


class Rung(Section):
    """Batches of `batch_tokens` until the run has trained on `until` tokens."""

    batch_tokens: Count
    until: Count


class BatchWarmup(Section):
    """Smaller batches at a run's start, in `rungs`; then `train.batch_tokens`.

    `scale_lr: sqrt` multiplies the learning rate by the root of the batch's share of the final one, which keeps the
    variance of updates (Malladi et al. 2022).
    """

    rungs: tuple[Rung, ...] = Field(min_length=1)
    scale_lr: Literal["sqrt", "none"] = "sqrt"

    @model_validator(mode="after")
    def _ordered(self) -> "BatchWarmup":
        _check_ascending("rungs: until", tuple(rung.until for rung in self.rungs))
        return self


def _check_ascending(name: str, moments: tuple[float, ...]) -> None:
    shares = [moment < 1 for moment in moments]
    if any(shares) != all(shares):
        raise ValueError(f"{name}: give all as shares of the tokens, or all in steps")
    if any(later <= earlier for earlier, later in pairwise(moments)):
        raise ValueError(f"{name}: each must be later than the one before, got {', '.join(map(str, moments))}")
