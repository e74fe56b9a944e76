"""Histograms as small SVG pictures that scale to their column and follow the page's colours."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from smelt.report import units

WIDTH, HEIGHT = 240.0, 84.0


class Picture(NamedTuple):
    """Paths of the documents before and after, in WIDTH x HEIGHT; `lines` are the places of thresholds along x.

    Heights are square roots of counts, so that few documents among many can be seen. `ticks` are the values at the
    left edge, the middle and the right edge.
    """

    title: str
    before: str
    after: str
    lines: list[float]
    limits: list[str]
    ticks: list[str]
    dropped: int


def picture(title: str, histogram: dict[str, list[Any]], limits: Sequence[float] = ()) -> Picture | None:
    """A histogram {"edges", "before", "after"} without the empty bins at its ends; None where it counts nothing.

    Bins are equally wide whatever their edges, so a threshold stands where it falls between its neighbours.
    """
    edges, before, after = (np.array(histogram[key], dtype=float) for key in ("edges", "before", "after"))
    filled = np.flatnonzero(before)
    if not len(filled):
        return None
    first, last = int(filled[0]), int(filled[-1]) + 1
    for limit in limits:
        if edges[0] <= limit <= edges[-1]:
            place = int(np.clip(np.searchsorted(edges, limit, side="right") - 1, 0, len(before) - 1))
            first, last = min(first, max(place - 1, 0)), max(last, min(place + 2, len(before)))
    edges, before, after = edges[first : last + 1], before[first:last], after[first:last]
    places = np.interp(limits, edges, np.linspace(0, WIDTH, len(edges))) if len(limits) else np.empty(0)
    shown = [edges[0] <= limit <= edges[-1] for limit in limits]
    return Picture(
        title,
        _path(before, before.max()),
        _path(after, before.max()),
        [round(float(place), 1) for place, there in zip(places, shown, strict=True) if there],
        [_short(limit) for limit in limits],
        [_short(edges[0]), _short(edges[len(edges) // 2]), _short(edges[-1])],
        int(before.sum() - after.sum()),
    )


def _path(counts: np.ndarray, most: float) -> str:
    heights = HEIGHT * (1 - np.sqrt(counts / most))
    xs = np.linspace(0, WIDTH, len(counts) + 1)
    steps = [f"M0 {HEIGHT:g}"]
    for left, right, height in zip(xs, xs[1:], heights, strict=False):
        steps.append(f"L{left:.1f} {height:.1f}H{right:.1f}")
    return "".join(steps) + f"V{HEIGHT:g}Z"


def _short(value: float) -> str:
    return units.count(value) if abs(value) >= 1000 else units.number(value)
