"""What a run does at each step: its stages, amendments, batch warmup and its trunk's past, cut into segments in which
nothing changes but the learning rate."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING, Any

from smelt.recipe.sections.schedule import Schedule
from smelt.recipe.sections.stage import Packing
from smelt.recipe.sections.train import Train
from smelt.recipe.settings import Settings
from smelt.recipe.walk import Piece, Planned, Walk

if TYPE_CHECKING:
    from smelt.recipe.schema import Recipe
    from smelt.recipe.sections.model import Model


@dataclass(frozen=True)
class Clock:
    """The steps that one schedule spans; `batches` are (steps, tokens a step), in their order."""

    schedule: Schedule
    batches: tuple[tuple[int, int], ...]

    @cached_property
    def steps(self) -> int:
        """All its steps."""
        return sum(steps for steps, _ in self.batches)

    @cached_property
    def tokens(self) -> int:
        """The tokens of all its steps."""
        return self.tokens_before(self.steps)

    def tokens_before(self, step: int) -> int:
        """The tokens of its first `step` steps."""
        tokens = 0
        for steps, each in self.batches:
            tokens += max(0, min(step, steps)) * each
            step -= steps
        return tokens


@dataclass(frozen=True)
class Segment:
    """Steps [first, end) in which nothing changes but the learning rate, which `clock` times.

    `stage` is an index into `train.stages`, below 0 for the stages of a trunk. `train` and `model` are the sections in
    effect (`model` is None where the recipe has none, or a warm start whose checkpoint has not been read). `skip`
    batches of data are passed over before `first`; `tokens` were trained on before it. `draw` counts the times that
    drawing from a mixture began afresh, and `window` the windows this drawing has handed out before `first`, those
    passed over included. `elapsed` steps of the clock lie before `first`; `lr_factor` is what the batch size makes of
    the learning rate.
    """

    first: int
    end: int
    stage: int
    name: str
    sequence: int
    batch_tokens: int
    mixture: Mapping[str, float]
    train: Train
    model: "Model | None"
    skip: int
    tokens: int
    draw: int
    window: int
    clock: Clock
    elapsed: int
    lr_factor: float
    shared: bool
    set: Mapping[str, Any]
    packing: Packing

    @property
    def windows(self) -> int:
        """Windows a batch."""
        return self.batch_tokens // self.sequence


class Plan:
    """The segments of a whole run. Steps are counted from 0; `first` is the first step of this run itself, behind the
    past it shares with a trunk.

    A trunk whose past is not known yet is taken to have trained as this run begins. Raises ValueError, which names the
    key, for amendments and stages that cannot be carried out.
    """

    def __init__(self, recipe: "Recipe") -> None:
        walk, settings = Walk(recipe), Settings(recipe.model)
        segments: list[Segment] = []
        for planned in walk.pieces():
            segments.append(_segment(planned, segments, settings))
        self.segments = tuple(segments)
        self.first = walk.first
        self.total_steps = segments[-1].end
        self._firsts = [segment.first for segment in segments]

    def at(self, step: int) -> Segment:
        """The segment of the batch consumed at 0-based `step`; past the end, the last."""
        return self.segments[bisect_right(self._firsts, max(0, step)) - 1]

    def tokens_before(self, step: int) -> int:
        """Tokens of the first `step` steps."""
        segment = self.at(step)
        return segment.tokens + (min(step, segment.end) - segment.first) * segment.batch_tokens

    def boundary(self, step: int) -> bool:
        """Whether a stage is complete once `step` steps are done."""
        before = self.at(step - 1)
        return 0 < step == before.end and (step == self.total_steps or self.at(step).stage != before.stage)


def _segment(planned: Planned, before: list[Segment], settings: Settings) -> Segment:
    piece = planned.piece
    train = settings.train(planned.train, planned.settings)
    draw, window = _drawing(piece, before[-1] if before else None)
    return Segment(
        first=piece.first,
        end=piece.end,
        stage=piece.stage,
        name=piece.name,
        sequence=piece.sequence,
        batch_tokens=piece.batch_tokens,
        mixture=piece.mixture,
        train=train,
        model=settings.model(planned.settings),
        skip=piece.skip,
        tokens=before[-1].tokens + (piece.first - before[-1].first) * before[-1].batch_tokens if before else 0,
        draw=draw,
        window=window + piece.skip * (piece.batch_tokens // piece.sequence),
        clock=_clock(planned),
        elapsed=sum(other.end - other.first for other in _timed(planned) if other.end <= piece.first),
        lr_factor=_lr_factor(train, piece.batch_tokens),
        shared=not piece.own,
        set=_set(planned),
        packing=piece.packing,
    )


def _drawing(piece: Piece, before: Segment | None) -> tuple[int, int]:
    """(number of the drawing that a piece takes part in, windows it has handed out).

    A stage draws afresh, and so does a change of mixture, sequence or packing; the first stage behind a trunk goes on
    where it has the name of the stage that it cuts short.
    """
    if before is None:
        return 0, 0
    same_stage = piece.stage == before.stage or (before.stage < 0 <= piece.stage and piece.name == before.name)
    cut = (piece.sequence, piece.packing, piece.mixture)
    if same_stage and cut == (before.sequence, before.packing, before.mixture):
        return before.draw, before.window + (before.end - before.first) * before.windows
    return before.draw + 1, 0


def _timed(planned: Planned) -> list[Piece]:
    return [other for other in planned.around if planned.piece.times(other)]


def _clock(planned: Planned) -> Clock:
    own = planned.train.stages[planned.piece.stage].schedule if planned.piece.stage >= 0 else None
    batches: list[tuple[int, int]] = []
    for each in _timed(planned):
        steps = each.end - each.first
        if batches and batches[-1][1] == each.batch_tokens:
            steps += batches.pop()[0]
        batches.append((steps, each.batch_tokens))
    return Clock(own or planned.train.schedule, tuple(batches))


def _lr_factor(train: Train, batch_tokens: int) -> float:
    """What a smaller batch makes of the learning rate: the root of its share, so that updates vary as much."""
    warmup = train.batch_warmup
    return sqrt(batch_tokens / train.batch_tokens) if warmup is not None and warmup.scale_lr == "sqrt" else 1.0


def _set(planned: Planned) -> dict[str, Any]:
    """The values that fields of the model were given, in the order in which they were given last."""
    made: dict[str, Any] = {}
    for setting in planned.settings:
        if setting.key.startswith("model."):
            made.pop(setting.key, None)
            made[setting.key] = setting.value
    return made
