"""`train`: stages, optimizer, schedule, and when to save and measure."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count, CountOrZero

_SETTABLE = re.compile(
    r"model(\.per_layer\.\d+)?\.(position\.theta|position\.scaling(\.\w+)?|attention\.(window|sink_tokens|chunk))"
)


class AdamW(Section):
    """Decoupled weight decay (Loshchilov & Hutter 2019); parameters whose name contains a `no_decay` word get none."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    no_decay: tuple[str, ...] = ("embedding", "norm")


class Cosine(Section):
    """Linear warmup, then half a cosine from the peak down to `min_lr_fraction` of it at the last step."""

    kind: Literal["cosine"]
    warmup_steps: CountOrZero = 2000
    min_lr_fraction: float = Field(default=0.1, ge=0, le=1)


class WSD(Section):
    """Warmup, stable, decay: linear warmup, the peak, then linear to `min_lr_fraction` over the last share of steps."""

    kind: Literal["wsd"] = "wsd"
    warmup_steps: CountOrZero = 2000
    decay_fraction: float = Field(default=0.1, ge=0, le=1)
    min_lr_fraction: float = Field(default=0.0, ge=0, le=1)


Schedule = Annotated[Cosine | WSD, Field(discriminator="kind")]


class Stage(Section):
    """A stretch of training with its own mixture: source -> weight, normalised.

    Its own `schedule` restarts the clock. `set` changes fields of the model from this stage on, those that change no
    weight's shape: `{model.position.theta: 2.0e6}`.
    """

    name: str
    tokens: Count | None = None
    steps: Count | None = None
    mixture: dict[str, float] = Field(min_length=1)
    sequence: Count | None = None
    schedule: Schedule | None = None
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _settable(self) -> "Stage":
        for key in self.set:
            if not _SETTABLE.fullmatch(key):
                raise ValueError(
                    f"stage '{self.name}': set: '{key}' cannot change between stages; what can is model.position.theta "
                    "and scaling, and model.attention.window, sink_tokens and chunk (or those of model.per_layer.N)"
                )
        return self

    @model_validator(mode="after")
    def _length(self) -> "Stage":
        if (self.tokens is None) == (self.steps is None):
            raise ValueError(f"stage '{self.name}': give exactly one of 'tokens' and 'steps'")
        bad = [f"{source}={weight}" for source, weight in self.mixture.items() if not 0 <= weight < float("inf")]
        if bad or not sum(self.mixture.values()) > 0:
            raise ValueError(
                f"stage '{self.name}': mixture weights must be >= 0 with a positive sum, got {bad or 'zeros'}"
            )
        return self


class Checkpoints(Section):
    """Save every `every_steps` steps and at the end of every stage; keep the newest `keep`."""

    every_steps: Count = 500
    keep: Count = 3


class Train(Section):
    """One training run."""

    sequence: Count
    batch_tokens: Count
    document_mask: bool = True
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    optimizer: AdamW = AdamW()
    schedule: Schedule = WSD()
    clip: float = Field(default=1.0, gt=0)
    stages: tuple[Stage, ...] = Field(min_length=1)
    checkpoints: Checkpoints = Checkpoints()
    log_every_steps: Count = 10

    @model_validator(mode="after")
    def _fits(self) -> "Train":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stage names must differ, got {', '.join(names)}")
        for index, stage in enumerate(self.stages):
            if self.batch_tokens % self.sequence_of(index):
                raise ValueError(
                    f"batch_tokens ({self.batch_tokens}) must be a multiple of the sequence "
                    f"({self.sequence_of(index)}) of stage '{stage.name}'"
                )
        return self

    def sequence_of(self, stage: int) -> int:
        """Tokens a window in stage `stage`."""
        return self.stages[stage].sequence or self.sequence

    def steps_of(self, stage: int) -> int:
        """Optimizer steps of stage `stage`; tokens are rounded up to whole batches."""
        steps = self.stages[stage].steps
        return steps if steps is not None else -(-(self.stages[stage].tokens or 0) // self.batch_tokens)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(self.steps_of(index) for index in range(len(self.stages)))

    def stage_at(self, step: int) -> tuple[int, int]:
        """(stage index, first step of that stage) of the batch consumed at 0-based `step`; past the end: the last."""
        first = 0
        for index in range(len(self.stages)):
            if step < first + self.steps_of(index) or index == len(self.stages) - 1:
                return index, first
            first += self.steps_of(index)
        raise AssertionError("a run has at least one stage")
