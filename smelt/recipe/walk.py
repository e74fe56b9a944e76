"""The steps of a run as they come: through stages and batch warmup, replanned at each amendment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from smelt.recipe.mixtures.weights import between, scaled
from smelt.recipe.sections.mixture import Ramp
from smelt.recipe.sections.stage import Packing, Stage
from smelt.recipe.sections.train import Train
from smelt.recipe.sections.trunk import Stretch, Trunk
from smelt.recipe.settings import Setting, planned

if TYPE_CHECKING:
    from smelt.recipe.schema import Recipe
    from smelt.recipe.sections.amendment import Amendment


@dataclass(frozen=True)
class Piece:
    """Steps [first, end) of stage number `stage` (below 0: of a trunk), alike in what they train on.

    Each rung of a ramp is a piece. `own` for a stage with its own schedule; `skip` batches are passed over before
    `first`.
    """

    first: int
    end: int
    stage: int
    name: str
    sequence: int
    batch_tokens: int
    mixture: Mapping[str, float]
    own: bool
    skip: int = 0
    packing: Packing = "concatenate"

    @property
    def tokens(self) -> int:
        """Tokens of all its steps."""
        return (self.end - self.first) * self.batch_tokens

    def times(self, other: "Piece") -> bool:
        """Whether the schedule of this piece counts the steps of the other."""
        return other.stage == self.stage if self.own else not other.own


@dataclass(frozen=True)
class Planned:
    """A piece, the `train` section as it was then, all pieces `before` it, the piece itself and those that were planned
    to follow at that time (`around`), and the settings that had been made by then."""

    piece: Piece
    train: Train
    around: Sequence[Piece]
    settings: tuple[Setting, ...]


class Walk:
    """Walks through `recipe`; `first` is where its own steps begin, behind a trunk's."""

    def __init__(self, recipe: "Recipe") -> None:
        self._train: Train = recipe.section("train")
        self._amendments = sorted(enumerate(recipe.amendments), key=lambda item: item[1].from_step)
        self._past = _past(self._train)
        self._done: list[Piece] = []
        self.first = sum(stretch.steps for stretch in self._past)

    def pieces(self) -> Iterator[Planned]:
        """The pieces of the run in order."""
        past = self._past_pieces()
        for piece in past:
            yield Planned(piece, self._train, past, self._settings(piece, past, self._train))
            self._done.append(piece)
        starts = sorted({step for _, each in self._amendments for step in (each.from_step, each.until_step or 0)})
        starts = [self.first, *(start for start in starts if start > self.first)]
        self._check_first()
        for start, end in zip(starts, [*starts[1:], inf], strict=True):
            beginning = [index for index, each in self._amendments if each.from_step == start]
            train = self._train_at(start)
            ahead = list(self._ahead(train, self._skipped(start)))
            if not ahead or ahead[0].first < start:
                self._check_reached(start, beginning)
                continue
            around = [*self._done, *ahead]
            for piece in ahead:
                if piece.first < end:
                    cut = piece if piece.end <= end else replace(piece, end=int(end))
                    yield Planned(cut, train, around, self._settings(cut, around, train))
                    self._done.append(cut)

    def _past_pieces(self) -> list[Piece]:
        pieces, first = [], 0
        stages = self._past[-1].stage + 1 if self._past else 0
        for each in self._past:
            end, stage = first + each.steps, each.stage - stages
            own, cut = not each.shared, (each.sequence, each.batch_tokens, each.mixture)
            pieces.append(Piece(first, end, stage, each.name, *cut, own, each.skip, each.packing))
            first = end
        return pieces

    def _ahead(self, train: Train, skip: int) -> Iterator[Piece]:
        """What is left of the run after the pieces done, with no further amendment."""
        step = self._done[-1].end if self._done else 0
        tokens = sum(piece.tokens for piece in self._done)
        for index in range(self._stage(), len(train.stages)):
            stage = train.stages[index]
            mine = [piece for piece in self._done if piece.stage == index]
            taken, trained = sum(piece.end - piece.first for piece in mine), sum(piece.tokens for piece in mine)
            sequence = train.sequence_of(index)
            while True:
                batch, until = _batch(train, tokens)
                left = _left(stage, taken, trained, batch)
                if left <= 0:
                    break
                mixture, alike = self._mixture(train, index, taken, trained, batch)
                steps = int(min(left, -(-(until - tokens) // batch), alike))
                own = stage.schedule is not None
                packing = train.packing_of(index)
                yield Piece(step, step + steps, index, stage.name, sequence, batch, mixture, own, skip, packing)
                step, taken, skip = step + steps, taken + steps, 0
                tokens, trained = tokens + steps * batch, trained + steps * batch

    def _mixture(
        self, train: Train, index: int, taken: int, trained: int, batch: int
    ) -> tuple[Mapping[str, float], float]:
        """(mixture of a stage once so many of its steps and tokens are done, how many more steps have it)."""
        factors = {source: cap.factor for source, cap in train.caps.items() if cap.factor is not None}
        stage = train.stages[index]
        mixture = scaled(stage.mixture, factors)
        part, alike = _rung(stage.ramp, taken, trained, batch) if stage.ramp else (1.0, inf)
        if part == 1:
            return mixture, inf
        before = scaled(train.stages[index - 1].mixture, factors) if index else self._past[-1].mixture
        return between(before, mixture, part), alike

    def _stage(self) -> int:
        """The stage at hand."""
        return max(0, self._done[-1].stage) if self._done else 0

    def _active(self, step: int) -> list[tuple[int, "Amendment"]]:
        return [
            (index, each)
            for index, each in self._amendments
            if each.from_step <= step and (each.until_step is None or step < each.until_step)
        ]

    def _skipped(self, step: int) -> int:
        """Batches to pass over right before `step`."""
        return sum(each.skip or 0 for _, each in self._amendments if each.from_step == step)

    def _train_at(self, step: int) -> Train:
        """The section `train` as amended by `step`; what begins to change there is checked against what is done."""
        active = self._active(step)
        train = planned(self._train, _planned(active))
        beginning = [each for each in active if each[1].from_step == step and each[1].planned]
        if beginning:
            before = planned(self._train, _planned([each for each in active if each not in beginning]))
            self._check_stages(before, train, f"amendments.{beginning[-1][0]}.set: by step {step}")
        return train

    def _check_stages(self, before: Train, after: Train, place: str) -> None:
        at = self._stage() if self._done else -1
        for index, (old, new) in enumerate(zip(before.stages[: at + 1], after.stages, strict=False)):
            if index < at and old != new:
                raise ValueError(f"{place} stage '{old.name}' has ended; amend a later one")
            if (old.name, old.set) != (new.name, new.set):
                raise ValueError(f"{place} stage '{old.name}' has begun, so its name and what it sets stay")
        if at >= 0 and len(after.stages) <= at:
            raise ValueError(f"{place} stage '{before.stages[at].name}' has begun; keep it in the list")

    def _settings(self, piece: Piece, around: Sequence[Piece], train: Train) -> tuple[Setting, ...]:
        """Settings in force at a piece, in the order in which they were made."""
        began = dict(reversed([(each.stage, each.first) for each in around]))
        made = []
        if self._past:
            number = min(len(self._done), len(self._past) - 1)
            made.append((0, 0, f"train.from.past.{number}.set", self._past[number].set))
        for index in range(piece.stage + 1):
            if index in began:
                made.append((began[index], 1, f"train.stages.{index}.set", train.stages[index].set))
        for number, each in self._active(piece.first):
            made.append((each.from_step, 2, f"amendments.{number}.set", each.settings))
        made.sort(key=lambda each: each[:2])
        return tuple(
            Setting(place, key, value)
            for step, _, place, changes in made
            if step <= piece.first
            for key, value in changes.items()
        )

    def _check_first(self) -> None:
        for index, each in self._amendments:
            if each.from_step < self.first:
                raise ValueError(
                    f"amendments.{index}.from_step: {each.from_step} lies before this run's own first step, "
                    f"{self.first}; what its trunk did cannot change"
                )

    def _check_reached(self, step: int, beginning: Sequence[int]) -> None:
        end = self._done[-1].end if self._done else 0
        if beginning:
            raise ValueError(
                f"amendments.{beginning[0]}.from_step: there is no step {step}, as the run ends after {end}; lengthen "
                "a stage before"
            )


def _past(train: Train) -> tuple[Stretch, ...]:
    """What a trunk did; where that is not known yet, a stretch as the run itself begins."""
    trunk: Trunk | None = train.trunk
    if trunk is None:
        return ()
    if trunk.past is not None:
        return trunk.past
    return (
        Stretch(
            stage=0,
            packing=train.packing_of(0),
            name="trunk",
            steps=trunk.step,
            sequence=train.sequence_of(0),
            batch_tokens=train.batch_tokens,
            mixture=train.stages[0].mixture,
        ),
    )


def _batch(train: Train, tokens: int) -> tuple[int, float]:
    """(tokens a step once `tokens` have been trained on, until how many)."""
    for rung in train.batch_warmup.rungs if train.batch_warmup else ():
        if tokens < rung.until:
            return rung.batch_tokens, rung.until
    return train.batch_tokens, inf


def _rung(ramp: Ramp, taken: int, trained: int, batch: int) -> tuple[float, float]:
    """(how far the ramp has come, 0 to 1, how many more steps it stays there)."""
    place = taken if ramp.steps else trained
    if place >= ramp.length:
        return 1.0, inf
    rung = place * ramp.rungs // ramp.length
    left = -(-(rung + 1) * ramp.length // ramp.rungs) - place
    return (rung + 0.5) / ramp.rungs, left if ramp.steps else -(-left // batch)


def _left(stage: Stage, taken: int, trained: int, batch: int) -> int:
    """Steps of `batch` tokens that a stage still has; tokens are rounded up to whole batches."""
    return stage.steps - taken if stage.steps is not None else -(-((stage.tokens or 0) - trained) // batch)


def _planned(amendments: Sequence[tuple[int, "Amendment"]]) -> list[Setting]:
    return [
        Setting(f"amendments.{index}.set", key, value)
        for index, each in amendments
        for key, value in each.planned.items()
    ]
