"""`train`: stages, optimizer, schedule, and when to save and measure."""

from typing import Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.adapt import Adapt
from smelt.recipe.sections.base import Section
from smelt.recipe.sections.checkpoints import Checkpoints
from smelt.recipe.sections.mixture import Cap
from smelt.recipe.sections.optimizer import AdamW, AnyOptimizer, Averaging, SkipStep, Soup
from smelt.recipe.sections.schedule import WSD, BatchWarmup, Schedule
from smelt.recipe.sections.stage import Packing, Stage
from smelt.recipe.sections.trunk import Trunk
from smelt.recipe.units import Count


class Train(Section):
    """One training run; `from` makes it go on from another one. `packing` fills windows with the stream of documents,
    cut wherever a window ends, or with whole documents that fit best, and padding."""

    trunk: Trunk | None = Field(default=None, alias="from")
    sequence: Count
    batch_tokens: Count
    batch_warmup: BatchWarmup | None = None
    document_mask: bool = True
    packing: Packing = "concatenate"
    precision: Literal["auto", "bf16", "fp32", "fp8"] = "auto"
    optimizer: AnyOptimizer = AdamW()
    schedule: Schedule = WSD()
    clip: float = Field(default=1.0, gt=0)
    skip_step: SkipStep | None = None
    averaging: Averaging | None = None
    stages: tuple[Stage, ...] = Field(min_length=1)
    caps: dict[str, Cap] = Field(default_factory=dict)
    adapt: Adapt | None = None
    checkpoints: Checkpoints = Checkpoints()
    log_every_steps: Count = 10

    @model_validator(mode="after")
    def _fits(self) -> "Train":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stage names must differ, got {', '.join(names)}")
        if self.stages[0].ramp is not None and self.trunk is None:
            raise ValueError("stages.0.ramp: there is no mixture before the first stage's; drop it, or use 'from'")
        for index, stage in enumerate(self.stages):
            if self.batch_tokens % self.sequence_of(index):
                raise ValueError(
                    f"batch_tokens ({self.batch_tokens}) must be a multiple of the sequence "
                    f"({self.sequence_of(index)}) of stage '{stage.name}'"
                )
        if isinstance(self.averaging, Soup) and self.averaging.last > self.checkpoints.keep:
            raise ValueError(
                f"averaging.last: {self.averaging.last} checkpoints cannot be averaged where checkpoints.keep leaves "
                f"{self.checkpoints.keep}; raise that"
            )
        return self

    def sequence_of(self, stage: int) -> int:
        """Tokens a window in stage `stage`."""
        return self.stages[stage].sequence or self.sequence

    def packing_of(self, stage: int) -> Packing:
        """How windows are filled with documents in stage `stage`."""
        return self.stages[stage].packing or self.packing
