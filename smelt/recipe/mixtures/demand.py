"""What a plan asks of each source, stage by stage, and how often that goes through what the source holds.

DATA-05's rule of thumb: a handful of passes over a source costs little, more than five is said aloud.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smelt.recipe.mixtures.weights import shares
from smelt.recipe.plan import Plan, Segment

if TYPE_CHECKING:
    from smelt.recipe.schema import Recipe

MANY_EPOCHS = 5.0


@dataclass(frozen=True)
class StageDemand:
    """What one stage consumes: steps [first, end), `tokens` in all and by source; `own` unless a trunk took it.

    `ramp_tokens` of them lie on its ramp, where the mixture is not its own yet; where a trunk's lay is not known.
    """

    name: str
    own: bool
    first: int
    end: int
    tokens: int
    sources: Mapping[str, float]
    ramp_tokens: int

    @property
    def shares(self) -> dict[str, float]:
        """Its tokens by source as shares."""
        return {source: tokens / self.tokens for source, tokens in self.sources.items()}


def stage_demands(plan: Plan) -> list[StageDemand]:
    """The stages of a plan in order, those of a trunk's past among them."""
    groups: list[list[Segment]] = []
    for segment in plan.segments:
        if groups and groups[-1][0].stage == segment.stage:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return [_stage(group) for group in groups]


def source_tokens(plan: Plan, own: bool | None = None) -> dict[str, float]:
    """Tokens that each source gives to a whole plan, batches passed over included; only to its `own` stages or only to
    its trunk's, where that is asked."""
    total: dict[str, float] = {}
    for segment in plan.segments:
        if own is None or own == (segment.stage >= 0):
            tokens = (segment.end - segment.first + segment.skip) * segment.batch_tokens
            for source, share in shares(segment.mixture).items():
                total[source] = total.get(source, 0.0) + share * tokens
    return total


def epoch_warnings(recipe: "Recipe", available: Mapping[str, int]) -> list[str]:
    """A sentence for each source that the plan reads more than five times, with the mends; sources whose size is not
    in `available` are passed over, and what a trunk read counts where that is known."""
    trunk = recipe.section("train").trunk
    known = trunk is None or trunk.past is not None
    said = []
    for source, tokens in source_tokens(Plan(recipe), own=None if known else True).items():
        passes = tokens / available[source] if available.get(source) else 0.0
        if passes > MANY_EPOCHS:
            said.append(
                f"{source}: {passes:.1f} epochs, as the plan takes {tokens:,.0f} tokens of its {available[source]:,}; "
                f"more than {MANY_EPOCHS:g} cost quality: lower its weight, set train.caps.{source}, or add documents"
            )
    return said


def _stage(segments: list[Segment]) -> StageDemand:
    tokens = [(segment.end - segment.first) * segment.batch_tokens for segment in segments]
    sources: dict[str, float] = {}
    for segment, each in zip(segments, tokens, strict=True):
        for source, share in shares(segment.mixture).items():
            sources[source] = sources.get(source, 0.0) + share * each
    last = segments[-1]
    return StageDemand(
        name=last.name,
        own=last.stage >= 0,
        first=segments[0].first,
        end=last.end,
        tokens=sum(tokens),
        sources={source: value for source, value in sources.items() if value},
        ramp_tokens=_ramp_tokens(segments),
    )


def _ramp_tokens(segments: list[Segment]) -> int:
    steps = tokens = on_ramp = 0
    for segment in segments:
        taken = segment.end - segment.first
        ramp = segment.train.stages[segment.stage].ramp if segment.stage >= 0 else None
        if ramp is not None and (steps if ramp.steps else tokens) < ramp.length:
            on_ramp += taken * segment.batch_tokens
        steps, tokens = steps + taken, tokens + taken * segment.batch_tokens
    return on_ramp
