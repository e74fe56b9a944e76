"""The data order: step -> windows, as a function of recipe and seed alone, at the same cost for every step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from smelt.dataset.epochs import Epochs, Layout
from smelt.dataset.mixture import PERIOD, Mixture
from smelt.dataset.permutation import Integers, key_of
from smelt.errors import InputError
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.train import Train


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
        if self.windows == 0 or sequence == self.sequence:
            return replace(self, sequence=sequence)
        return replace(self, position=layout.align(self.position, self.sequence, sequence), sequence=sequence)

    def advance(self, windows: int) -> "_Cursor":
        return _Cursor(
            self.position + windows, self.sequence, self.windows + windows, self.tokens + windows * self.sequence
        )


@dataclass(frozen=True)
class _Stage:
    """A stage ready to draw from: `cursors` are where every source stands when it begins."""

    sequence: int
    mixture: Mixture
    cursors: tuple[_Cursor, ...]
    positions: Integers

    def after(self, windows: int) -> tuple[_Cursor, ...]:
        """The cursors once the stage has drawn so many windows."""
        drawn = self.mixture.drawn(windows).tolist()
        return tuple(cursor.advance(count) for cursor, count in zip(self.cursors, drawn, strict=True))


class DataOrder:
    """Which windows make up the batch of a step. `token_counts` are the tokens of each source.

    Nothing depends on ranks, on the micro-batch, or on how long the stage at hand is planned to be. Raises InputError
    for a source that holds less than one window of a stage that draws from it.
    """

    def __init__(self, recipe: Recipe, token_counts: Mapping[str, int]) -> None:
        self._train: Train = recipe.section("train")
        self.names = recipe.sources
        self._layouts = [Layout(token_counts.get(name, 0), recipe.dataset.span) for name in self.names]
        self._epochs = Epochs(self._layouts, [key_of(recipe.seed, name) for name in self.names])
        self._stages: list[_Stage] = []
        cursors = tuple(_Cursor() for _ in self.names)
        for index in range(len(self._train.stages)):
            self._stages.append(self._stage(index, cursors))
            cursors = self._stages[-1].after(self._train.steps_of(index) * self._batch(index))

    def windows(self, step: int, rank: int = 0, ranks: int = 1) -> Windows:
        """The windows of 0-based `step`, or the part that `rank` of `ranks` reads; parts joined in rank order are the
        whole, and differ by at most one window."""
        index, first = self._train.stage_at(step)
        stage, batch = self._stages[index], self._batch(index)
        window = (step - first) * batch + np.arange(batch * rank // ranks, batch * (rank + 1) // ranks)
        source, nth = stage.mixture.locate(window)
        offsets, epochs = self._epochs.locate(source, stage.positions[source] + nth, stage.sequence)
        return Windows(source, offsets, epochs, stage.sequence)

    def consumed(self, step: int) -> dict[str, dict[str, float]]:
        """What the first `step` steps have used up, by source.

        `windows` and `tokens` were read, `skipped` tokens passed over (rests of groups at a change of sequence, and
        what fills no window at an epoch's end), and `epochs` is both together over the source's tokens.
        """
        index, first = self._train.stage_at(step)
        cursors = self._stages[index].after((step - first) * self._batch(index))
        return {
            name: _account(layout, cursor)
            for name, layout, cursor in zip(self.names, self._layouts, cursors, strict=True)
        }

    def _batch(self, stage: int) -> int:
        return self._train.batch_tokens // self._train.sequence_of(stage)

    def _stage(self, index: int, cursors: tuple[_Cursor, ...]) -> _Stage:
        sequence = self._train.sequence_of(index)
        weights = [self._train.stages[index].mixture.get(name, 0.0) for name in self.names]
        mixture = Mixture(weights)
        key = f"train.stages.{index}.mixture"
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
        return _Stage(sequence, mixture, entered, np.array([cursor.position for cursor in entered], dtype=np.int64))


def _account(layout: Layout, cursor: _Cursor) -> dict[str, float]:
    passed = layout.passed(cursor.position, cursor.sequence) if cursor.windows else 0
    return {
        "windows": cursor.windows,
        "tokens": cursor.tokens,
        "epochs": passed / layout.tokens if passed else 0.0,
        "skipped": passed - cursor.tokens,
    }
