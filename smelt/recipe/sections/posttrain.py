"""`posttrain`: what turns the base model into an assistant, stage by stage."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Instructions(Section):
    """Generated questions on sums, word problems, strings and lists, with checked answers."""

    kind: Literal["instructions"]
    examples: Count = 20_000


class ChatFiles(Section):
    """Conversations in the `messages` form, JSON Lines (plain, `.gz` or `.zst`); `path` may be a glob."""

    kind: Literal["jsonl"]
    path: str


ChatData = Annotated[Instructions | ChatFiles, Field(discriminator="kind")]


class SupervisedFineTuning(Section):
    """Supervised fine-tuning on the assistant's tokens only; `batch_examples` conversations an optimizer step.

    `precision` of the products, as in `train`; weights are float32.
    """

    kind: Literal["sft"]
    name: str = "sft"
    data: ChatData
    lr: float = Field(default=1e-5, gt=0)
    warmup_fraction: float = Field(default=0.03, ge=0, le=1)
    batch_examples: Count = 128
    epochs: float = Field(default=1.0, gt=0)
    max_length: Count = 1024
    packing: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"


class Posttrain(Section):
    """Stages run in order, each on the model the one before left; `tasks` are evaluated after each."""

    stages: tuple[SupervisedFineTuning, ...] = Field(min_length=1)
    tasks: tuple[str, ...] = ()
    items: Count = 200

    @model_validator(mode="after")
    def _names(self) -> "Posttrain":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stage names must differ, got {', '.join(names)}")
        return self
