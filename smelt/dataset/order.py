"""The data order: step -> windows, as a function of recipe and seed alone, at the same cost for every step."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy as np

from smelt.dataset.cuts import Concatenated, Cut
from smelt.dataset.epochs import Epochs, Layout
from smelt.dataset.mixture import PERIOD, Mixture
from smelt.dataset.packed import Packed
from smelt.dataset.packing import Table
from smelt.dataset.permutation import Integers, key_of
from smelt.errors import InputError
from smelt.recipe.mixtures.caps import with_caps
from smelt.recipe.plan import Plan, Segment
from smelt.recipe.schema import Recipe


class Windows(NamedTuple):
    """The windows of a batch, all arrays [windows]: index into `Recipe.sources`, first token in the source (where
    `packed`, the window's number in the source's table), epoch."""

    sources: Integers
    offsets: Integers
    epochs: Integers
    sequence: int
    packed: bool = False


class Seen(NamedTuple):
    """Where a run reads a stretch of a source's tokens: the 0-based step, the row and columns of its batch, the epoch;
    and the stretch, [first, last) tokens of the source."""

    step: int
    row: int
    columns: tuple[int, int]
    epoch: int
    tokens: tuple[int, int]


@dataclass(frozen=True)
class _Cursor:
    """How far a source has come: `position` counts windows as `cut` has them; `tokens` leave padding out."""

    cut: Cut | None = None
    position: int = 0
    windows: int = 0
    tokens: int = 0
    padding: int = 0

    def enter(self, cut: Cut) -> "_Cursor":
        """Ready to be read in the windows of `cut`; another one begins at the first group that has not begun."""
        if self.cut is None or self.position == 0 or cut is self.cut:
            return replace(self, cut=cut)
        return replace(self, cut=cut, position=cut.begin(*self.cut.reach(self.position)))

    def advance(self, windows: int, read: list[tuple[int, int]]) -> "_Cursor":
        """`windows` further, of which those in the ranges `read`, from 0, were not passed over."""
        if self.cut is None or not windows:
            return self
        position, kept = self.position, sum(last - first for first, last in read)
        tokens = sum(self.cut.read(position + last) - self.cut.read(position + first) for first, last in read)
        return replace(
            self,
            position=position + windows,
            windows=self.windows + kept,
            tokens=self.tokens + tokens,
            padding=self.padding + kept * self.cut.sequence - tokens,
        )


@dataclass
class _Draw:
    """A drawing from one mixture: `cursors` are where every source stands when it begins; [first, last) in `passed` are
    windows that it passes over."""

    sequence: int
    packed: bool
    mixture: Mixture
    cursors: tuple[_Cursor, ...]
    positions: Integers
    segments: list[Segment] = field(default_factory=list)
    passed: list[tuple[int, int]] = field(default_factory=list)

    @property
    def windows(self) -> int:
        """Windows that it hands out, those passed over included."""
        last = self.segments[-1]
        return last.window + (last.end - last.first) * last.windows

    def add(self, segment: Segment) -> None:
        """Takes another segment in."""
        self.segments.append(segment)
        if segment.skip:
            self.passed.append((segment.window - segment.skip * segment.windows, segment.window))

    def after(self, windows: int) -> tuple[_Cursor, ...]:
        """The cursors once so many windows have been drawn, those passed over included."""
        at = [0]
        for first, last in self.passed:
            if first < windows:
                at += [first, min(last, windows)]
        drawn = [self.mixture.drawn(each) for each in (*at, windows)]
        counts = np.stack(drawn, axis=1).tolist()  # [sources, an even number of bounds]
        return tuple(
            cursor.advance(each[-1], list(zip(each[::2], each[1::2], strict=True)))
            for cursor, each in zip(self.cursors, counts, strict=True)
        )

    def step(self, window: int) -> tuple[int, int] | None:
        """The (step, row of its batch) that one of its windows is read at; None if it is passed over."""
        if any(first <= window < last for first, last in self.passed):
            return None
        segment = next(each for each in reversed(self.segments) if each.window <= window)
        step, row = divmod(window - segment.window, segment.windows)
        return segment.first + step, row


class DataOrder:
    """Which windows make up the batch of a step. `token_counts` are the tokens of each source; `table(source,
    sequence)` is asked for the packed windows of those that a stage with best-fit packing draws from.

    Nothing depends on ranks, on the micro-batch, or on how long the stage at hand is planned to be. Raises InputError
    for a source that holds less than one window of a stage that draws from it.
    """

    def __init__(
        self,
        recipe: Recipe,
        token_counts: Mapping[str, int],
        table: Callable[[str, int], Table] | None = None,
    ) -> None:
        _check_past(recipe)
        recipe = with_caps(recipe, token_counts)
        self.plan = Plan(recipe)
        self.names = recipe.sources
        self._table = table
        self._layouts = [Layout(token_counts.get(name, 0), recipe.dataset.span) for name in self.names]
        self._keys = [key_of(recipe.seed, name) for name in self.names]
        self._epochs = Epochs(self._layouts, self._keys)
        self._cut = cache(self._make_cut)
        self._draws: list[_Draw] = []
        for segment in self.plan.segments:
            if segment.draw == len(self._draws):
                before = self._draws[-1].after(self._draws[-1].windows) if self._draws else None
                self._draws.append(self._draw(segment, before or tuple(_Cursor() for _ in self.names)))
            self._draws[-1].add(segment)

    def windows(self, step: int, rank: int = 0, ranks: int = 1) -> Windows:
        """The windows of 0-based `step`, or the part that `rank` of `ranks` reads; parts joined in rank order are the
        whole, and differ by at most one window."""
        segment = self.plan.at(step)
        draw, batch = self._draws[segment.draw], segment.windows
        first = segment.window + (step - segment.first) * batch
        window = first + np.arange(batch * rank // ranks, batch * (rank + 1) // ranks)
        source, nth = draw.mixture.locate(window)
        position = draw.positions[source] + nth
        locate = self._locate_packed if draw.packed else self._epochs.locate
        return Windows(source, *locate(source, position, segment.sequence), segment.sequence, draw.packed)

    def seen(self, source: str, tokens: tuple[int, int], document: int) -> list[Seen]:
        """When tokens [first, last) of a source, of the document that begins at token `document`, are read, in the
        order of steps: the inverse of `windows` over the whole plan."""
        index = self.names.index(source)
        return sorted(each for draw in self._draws for each in _seen(draw, index, tokens, document))

    def table(self, source: int, sequence: int) -> Table:
        """The packed windows of a source, by its index into `names`."""
        assert self._table is not None
        return self._table(self.names[source], sequence)

    def consumed(self, step: int) -> dict[str, dict[str, float]]:
        """What the first `step` steps have used up, by source.

        `windows` and `tokens` were read, `skipped` tokens passed over (by amendments, at a change of sequence or
        packing, and what fills no window at an epoch's end), and `epochs` is both together over the source's tokens.
        `padding` is there where windows were packed: what no document fills of them. Over a change of packing,
        `skipped` and `epochs` may be a document a span off, as one that crosses a span's edge is read with the span
        that it begins in, or cut there.
        """
        segment = self.plan.at(step)
        cursors = self._draws[segment.draw].after(segment.window + (step - segment.first) * segment.windows)
        return {
            name: _account(layout, cursor)
            for name, layout, cursor in zip(self.names, self._layouts, cursors, strict=True)
        }

    def _draw(self, segment: Segment, cursors: tuple[_Cursor, ...]) -> _Draw:
        sequence, packed = segment.sequence, segment.packing == "best-fit"
        weights = [segment.mixture.get(name, 0.0) for name in self.names]
        mixture = Mixture(weights)
        key = f"train.stages.{segment.stage}.mixture"
        for name, weight, count, layout in zip(self.names, weights, mixture.counts, self._layouts, strict=True):
            if weight and not count:
                raise InputError(
                    f"{key}.{name}: a weight of {weight:g} is less than one window in {PERIOD:,}; raise it or make it 0"
                )
            if weight and layout.tokens < (1 if packed else sequence):
                raise InputError(
                    f"{key}.{name}: the source holds {layout.tokens:,} tokens, less than one window of {sequence:,}; "
                    "give it more documents, shorten the sequence, or weigh it 0"
                )
        entered = tuple(
            cursor.enter(self._cut(index, sequence, packed)) if weight else cursor
            for index, (cursor, weight) in enumerate(zip(cursors, weights, strict=True))
        )
        positions = np.array([cursor.position for cursor in entered], dtype=np.int64)
        return _Draw(sequence, packed, mixture, entered, positions)

    def _make_cut(self, source: int, sequence: int, packed: bool) -> Cut:
        layout, key = self._layouts[source], np.array(self._keys[source : source + 1], dtype=np.uint64)
        if packed:
            return Packed(layout, sequence, key, self.table(source, sequence))
        return Concatenated(layout, sequence, key)

    def _locate_packed(self, sources: Integers, position: Integers, sequence: int) -> tuple[Integers, Integers]:
        """(number of the window in its source's table, epoch) at positions of sources; all arrays [n]."""
        window, epochs = np.empty_like(position), np.empty_like(position)
        for source in np.unique(sources).tolist():
            mine = sources == source
            cut = self._cut(source, sequence, True)
            assert isinstance(cut, Packed)
            window[mine], epochs[mine] = cut.locate(position[mine])
        return window, epochs


def _seen(draw: _Draw, source: int, tokens: tuple[int, int], document: int) -> Iterator[Seen]:
    cursor, mixture = draw.cursors[source], draw.mixture
    drawn = int(mixture.drawn(draw.windows)[source])
    if cursor.cut is None or not drawn:
        return
    first, last = tokens
    while first < last:
        place = cursor.cut.place(first, document)
        if place is None:
            return
        until = min(last, place.until)
        epochs = cursor.position // cursor.cut.windows, (cursor.position + drawn - 1) // cursor.cut.windows
        for epoch in range(epochs[0], epochs[1] + 1):
            nth = cursor.cut.position(epoch, place.window) - cursor.position
            if not 0 <= nth < drawn:
                continue
            at = draw.step(int(mixture.window_of(source, np.array([nth]))[0]))
            if at is not None:
                yield Seen(*at, (place.column, place.column + until - first), epoch, (first, until))
        first = until


def _check_past(recipe: Recipe) -> None:
    trunk = recipe.section("train").trunk
    if trunk is not None and trunk.past is None:
        raise InputError(
            f"train.from: what run '{trunk.run}' trained on is not known here; begin with 'smelt train', or name a "
            "recipe that a run has frozen"
        )


def _account(layout: Layout, cursor: _Cursor) -> dict[str, float]:
    passed = cursor.cut.passed(cursor.position) if cursor.cut is not None and cursor.position else 0
    return {
        "windows": cursor.windows,
        "tokens": cursor.tokens,
        "epochs": passed / layout.tokens if passed else 0.0,
        "skipped": max(0, passed - cursor.tokens),
        **({"padding": cursor.padding} if cursor.padding else {}),
    }
