"""What every part of a layer answers about itself, without torch: parameters, FLOPs, and what decoding must keep."""

from typing import Any, NamedTuple

from smelt.recipe.parts.norm import Norm
from smelt.recipe.sections.base import Section


class Counts(NamedTuple):
    """Parameters of a part: all of them, and those that one token meets (fewer only where experts are chosen)."""

    total: int
    active: int

    @classmethod
    def dense(cls, total: int) -> "Counts":
        """Every parameter meets every token."""
        return cls(total, total)

    def __add__(self, other: tuple[Any, ...]) -> "Counts":
        return Counts(self.total + other[0], self.active + other[1])


class Kept(NamedTuple):
    """Numbers that decoding keeps for one row: `values` in the activations' dtype, `states` in float32."""

    values: int
    states: int = 0

    def __add__(self, other: tuple[Any, ...]) -> "Kept":
        return Kept(self.values + other[0], self.states + other[1])


class Surroundings(NamedTuple):
    """What a part knows of the layer it stands in."""

    hidden: int
    position: Any
    norm: Norm


class Part(Section):
    """One kind of mixer or feed-forward. A kind overrides what differs from a part that has nothing."""

    def check(self, around: Surroundings) -> None:
        """ValueError, in one line, where this part does not fit its surroundings."""

    def count(self, around: Surroundings) -> Counts:
        """Parameters."""
        return Counts.dense(0)

    def flops(self, around: Surroundings, sequence: int) -> int:
        """Forward FLOPs a token, averaged over a row of `sequence` tokens: 2 a weight, causal attention at half."""
        return 0

    def kept(self, around: Surroundings, tokens: int) -> Kept:
        """What the cache of one row holds when it has room for `tokens` tokens."""
        return Kept(0)
