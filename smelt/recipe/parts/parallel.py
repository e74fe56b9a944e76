"""Several mixers side by side in one layer, their outputs added."""

from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from smelt.recipe.parts.part import Counts, Kept, Part, Surroundings
from smelt.recipe.sections.base import Section


class Branch(Section):
    """One mixer, with factors on what goes in and what comes out."""

    mixer: SerializeAsAny[Part]
    input_scale: float = 1.0
    output_scale: float = 1.0

    @field_validator("mixer", mode="before")
    @classmethod
    def _any_kind(cls, value: Any) -> Any:
        from smelt.recipe.parts.table import MIXER

        return MIXER.validate_python(value)


class Parallel(Part):
    """The layer's normalised input goes to every branch, and their outputs are added (Falcon-H1)."""

    kind: Literal["parallel"]
    branches: tuple[Branch, ...] = Field(min_length=2)

    def check(self, around: Surroundings) -> None:
        for index, branch in enumerate(self.branches):
            if branch.mixer.kind == "none":  # type: ignore[attr-defined]
                raise ValueError(f"branches.{index} has the mixer 'none', which adds nothing; drop that branch")
            try:
                branch.mixer.check(around)
            except ValueError as error:
                raise ValueError(f"branches.{index}: {error}") from None

    def count(self, around: Surroundings) -> Counts:
        return sum((branch.mixer.count(around) for branch in self.branches), Counts(0, 0))

    def flops(self, around: Surroundings, sequence: int) -> int:
        return sum(branch.mixer.flops(around, sequence) for branch in self.branches)

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        return sum((branch.mixer.kept(around, tokens) for branch in self.branches), Kept(0))
