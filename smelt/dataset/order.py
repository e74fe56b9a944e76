"""The data order: step -> windows, as a function of recipe and seed alone, at the same cost for every step."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from smelt.dataset.epochs import Epochs, Layout
from smelt.dataset.mixture import PERIOD, Mixture
from smelt.dataset.permutation import Integers, key_of
from smelt.errors import InputError
from smelt.recipe.plan import Plan, Segment
from smelt.recipe.schema import Recipe


class Windows(NamedTuple):
    """The windows of a batch, all arrays [windows]: index into `Recipe.sources`, first token in the source, epoch."""

    sources: Integers
    offsets: Integers
    epochs: Integers
    sequence: int


@dataclass(frozen=True)
class _Cursor:
    """How far a source has come: `position` counts windows of `sequence` tokens, as `Layout` has it."""

    position: int = 0
    sequence: int = 0
    windows: int = 0
    tokens: int = 0

    def enter(self, layout: Layout, sequence: int) -> "_Cursor":
        """Ready to be read in windows of `sequence` tokens."""
        if self.position == 0 or sequence == self.sequence:
            return replace(self, sequence=sequence)
        return replace(self, position=layout.align(self.position, self.sequence, sequence), sequence=sequence)

    def advance(self, windows: int, read: int) -> "_Cursor":
        """`windows` further, of which `read` were not passed over."""
        return _Cursor(self.position + windows, self.sequence, self.windows + read, self.tokens + read * self.sequence)


@dataclass
class _Draw:
    """A drawing from one mixture: `cursors` are where every source stands when it begins; [first, last) in `passed` are
    windows that it passes over."""

    sequence: int
    mixture: Mixture
    cursors: tuple[_Cursor, ...]
    positions: Integers
    passed: list[tuple[int, int]] = field(default_factory=list)

    def after(self, windows: int) -> tuple[_Cursor, ...]:
        """The cursors once so many windows have been drawn, those passed over included."""
        read = drawn = self.mixture.drawn(windows)
        for first, last in self.passed:
            if first < windows:
                read = read - (self.mixture.drawn(min(last, windows)) - self.mixture.drawn(first))
        counts = zip(self.cursors, drawn.tolist(), read.tolist(), strict=True)
        return tuple(cursor.advance(count, kept) for cursor, count, kept in counts)


class DataOrder:
    """Which windows make up the batch of a step. `token_counts` are the tokens of each source.

    Nothing depends on ranks, on the micro-batch, or on how long the stage at hand is planned to be. Raises InputError
    for a source that holds less than one window of a stage that draws from it.
    """

    def __init__(self, recipe: Recipe, token_counts: Mapping[str, int]) -> None:
        _check_past(recipe)
        self.plan = Plan(recipe)
        self.names = recipe.sources
        self._layouts = [Layout(token_counts.get(name, 0), recipe.dataset.span) for name in self.names]
        self._epochs = Epochs(self._layouts, [key_of(recipe.seed, name) for name in self.names])
        self._draws: list[_Draw] = []
        drawn = 0
        for segment in self.plan.segments:
            if segment.draw == len(self._draws):
                before = self._draws[-1].after(drawn) if self._draws else tuple(_Cursor() for _ in self.names)
                self._draws.append(self._draw(segment, before))
            if segment.skip:
                skipped = segment.skip * segment.windows
                self._draws[-1].passed.append((segment.window - skipped, segment.window))
            drawn = segment.window + (segment.end - segment.first) * segment.windows

    def windows(self, step: int, rank: int = 0, ranks: int = 1) -> Windows:
        """The windows of 0-based `step`, or the part that `rank` of `ranks` reads; parts joined in rank order are the
        whole, and differ by at most one window."""
        segment = self.plan.at(step)
        draw, batch = self._draws[segment.draw], segment.windows
        first = segment.window + (step - segment.first) * batch
        window = first + np.arange(batch * rank // ranks, batch * (rank + 1) // ranks)
        source, nth = draw.mixture.locate(window)
        offsets, epochs = self._epochs.locate(source, draw.positions[source] + nth, segment.sequence)
        return Windows(source, offsets, epochs, segment.sequence)

    def consumed(self, step: int) -> dict[str, dict[str, float]]:
        """What the first `step` steps have used up, by source.

        `windows` and `tokens` were read, `skipped` tokens passed over (by amendments, at a change of sequence, and what
        fills no window at an epoch's end), and `epochs` is both together over the source's tokens.
        """
        segment = self.plan.at(step)
        cursors = self._draws[segment.draw].after(segment.window + (step - segment.first) * segment.windows)
        return {
            name: _account(layout, cursor)
            for name, layout, cursor in zip(self.names, self._layouts, cursors, strict=True)
        }

    def _draw(self, segment: Segment, cursors: tuple[_Cursor, ...]) -> _Draw:
        sequence = segment.sequence
        weights = [segment.mixture.get(name, 0.0) for name in self.names]
        mixture = Mixture(weights)
        key = f"train.stages.{segment.stage}.mixture"
        for name, weight, count, layout in zip(self.names, weights, mixture.counts, self._layouts, strict=True):
            if weight and not count:
                raise InputError(
                    f"{key}.{name}: a weight of {weight:g} is less than one window in {PERIOD:,}; raise it or make it 0"
                )
            if weight and layout.tokens < sequence:
                raise InputError(
                    f"{key}.{name}: the source holds {layout.tokens:,} tokens, less than one window of {sequence:,}; "
                    "give it more documents, shorten the sequence, or weigh it 0"
                )
        entered = tuple(
            cursor.enter(layout, sequence) if weight else cursor
            for cursor, layout, weight in zip(cursors, self._layouts, weights, strict=True)
        )
        return _Draw(sequence, mixture, entered, np.array([cursor.position for cursor in entered], dtype=np.int64))


def _check_past(recipe: Recipe) -> None:
    trunk = recipe.section("train").trunk
    if trunk is not None and trunk.past is None:
        raise InputError(
            f"train.from: what run '{trunk.run}' trained on is not known here; begin with 'smelt train', or name a "
            "recipe that a run has frozen"
        )


def _account(layout: Layout, cursor: _Cursor) -> dict[str, float]:
    passed = layout.passed(cursor.position, cursor.sequence) if cursor.position else 0
    return {
        "windows": cursor.windows,
        "tokens": cursor.tokens,
        "epochs": passed / layout.tokens if passed else 0.0,
        "skipped": passed - cursor.tokens,
    }
