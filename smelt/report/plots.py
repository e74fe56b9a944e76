"""Figures of a run. Each function returns a matplotlib `Figure` that knows nothing of pyplot's global state.

`width` is in inches: figures at least `SIDE_BY_SIDE` wide put their panels in a row, narrower ones in a column.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from smelt.report import facts, units
from smelt.report.run import Row, RunData, column, read_run
from smelt.report.style import (
    BAND,
    GREY,
    INK,
    MUTED,
    WIDE,
    canvas,
    colours,
    drawing,
    heading,
    legend,
    panels,
    positive_axis,
    short,
    smooth,
    thin,
    token_axis,
)

SIDE_BY_SIDE = 7.0
_POINT: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": "none"}
_DASHED: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (4, 3))}


def plot_run(run: Path) -> Figure:
    """Loss, optimizer and throughput of a run directory in one figure, for notebooks."""
    data = read_run(run)
    with drawing():
        figure = canvas(WIDE, 10.2)
        parts: Any = figure.subfigures(3, 1, height_ratios=(1.25, 1, 1.1), hspace=0.04)
        top, middle, bottom = parts
        _loss(top, data, WIDE)
        _optimizer(middle, data, WIDE)
        _throughput(bottom, data, WIDE)
    return figure


def loss(run: RunData, width: float = WIDE) -> Figure:
    """Training loss by source, and validation bits per byte against the bigram baseline, over tokens."""
    with drawing():
        figure = canvas(width, 3.9 if width >= SIDE_BY_SIDE else 6.4)
        _loss(figure, run, width)
    return figure


def optimizer(run: RunData, width: float = WIDE) -> Figure:
    """Learning rate, and the gradient's norm before clipping, over tokens."""
    with drawing():
        figure = canvas(width, 2.9 if width >= SIDE_BY_SIDE else 4.8)
        _optimizer(figure, run, width)
    return figure


def throughput(run: RunData, width: float = WIDE) -> Figure:
    """Tokens per second, and where the time of a step goes."""
    with drawing():
        figure = canvas(width, 3.2 if width >= SIDE_BY_SIDE else 5.2)
        _throughput(figure, run, width)
    return figure


def mixture(run: RunData, width: float = WIDE) -> Figure:
    """Shares of tokens by stage: as the recipe plans and, where recorded, as consumed."""
    bars = [
        (f"{short(stage.name)}, {word}", shares)
        for stage in facts.stages(run)
        for word, shares in (("planned", stage.planned), ("seen", stage.seen))
        if shares
    ]
    palette = colours(run.sources)
    with drawing():
        figure = canvas(width, 0.9 + 0.34 * max(1, len(bars)))
        (axes,) = panels(figure, 1, 1)
        for row, (_, shares) in enumerate(bars):
            left = 0.0
            for source, share in shares.items():
                axes.barh(row, share, left=left, height=0.72, color=palette.get(source, GREY))
                if share * width > 0.55:
                    axes.text(left + share / 2, row, f"{100 * share:.0f} %", ha="center", va="center", color="#fefefe")
                left += share
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axes.set_xlabel("share of tokens")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        _source_legend(figure, run, width, [])
    return figure


def _loss(figure: Figure | SubFigure, run: RunData, width: float) -> None:
    scores = facts.source_scores(run)
    both = panels(figure, 2 if scores else 1, 2 if scores and width >= SIDE_BY_SIDE else 1)
    extra = [(Line2D([], [], color=INK, linewidth=1.1), "all sources")]
    _training_loss(both[0], run)
    if scores:
        _validation_bits(both[1], run, scores)
        extra.append((Line2D([], [], color=MUTED, linestyle="none", **_POINT), "validation"))
        if any(score.bigram is not None for score in scores):
            extra.append((Line2D([], [], color=MUTED, **_DASHED), "bigram baseline"))
    _source_legend(figure, run, width, extra)


def _training_loss(axes: Axes, run: RunData) -> None:
    tokens, total = column(run.metrics, "tokens"), column(run.metrics, "loss")
    drawn = [total]
    for source, colour in colours(run.sources).items():
        values = column(run.metrics, f"loss_{source}")
        drawn.append(values)
        _faint_and_mean(axes, run, values, colour)
        points = _validation(run, source, "loss")
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linestyle="none", clip_on=False, **_POINT)
    axes.plot(*thin(tokens, _smooth(run, total)), color=INK, linewidth=1.1)
    _finish(axes, run, "Training loss", "nats per token", np.concatenate(drawn))


def _validation_bits(axes: Axes, run: RunData, scores: Sequence[facts.SourceScore]) -> None:
    bounds = []
    for score in scores:
        colour = colours(run.sources)[score.source]
        points = _validation(run, score.source, "bits_per_byte")
        bounds += [bits for _, bits in points]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, clip_on=False, **_POINT)
        if score.bigram is not None:
            bounds.append(score.bigram)
            axes.axhline(score.bigram, color=colour, **_DASHED)
    _finish(axes, run, "Validation", "bits per byte", bounds)


def _optimizer(figure: Figure | SubFigure, run: RunData, width: float) -> None:
    left, right = panels(figure, 2, 2 if width >= SIDE_BY_SIDE else 1)
    tokens, rates, norms = (column(run.metrics, key) for key in ("tokens", "lr", "grad_norm"))
    left.plot(*thin(tokens, rates), color=INK)
    left.set_ylim(bottom=0)
    _finish(left, run, "Learning rate", "", [])
    left.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.scientific(value)))
    _faint_and_mean(right, run, norms)
    _finish(right, run, "Gradient norm, before clipping", "", norms)


def _throughput(figure: Figure | SubFigure, run: RunData, width: float) -> None:
    left, right = panels(figure, 2, 2 if width >= SIDE_BY_SIDE else 1)
    tokens, rate = column(run.metrics, "tokens"), column(run.metrics, "tokens_per_second")
    _faint_and_mean(left, run, rate)
    left.set_ylim(bottom=0)
    _finish(left, run, "Throughput", "tokens per second", [])
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
    phases = phase_seconds(run.metrics)
    palette = colours(phases)
    x, *parts = thin(tokens, *(_smooth(run, values) for values in phases.values()))
    if len(x):
        areas = right.stackplot(x, *parts, colors=palette.values(), linewidth=0)
        legend(figure, areas, list(phases), width)
    _finish(right, run, "Time of a step", "seconds", [])


def phase_seconds(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Seconds a step spends in each phase; "other" is what the step took beyond the phases that are logged."""
    keys = {
        "forward and backward": "forward_backward_seconds",
        "optimizer": "optimizer_seconds",
        "waiting for data": "data_seconds",
    }
    phases = {name: np.nan_to_num(column(rows, key)) for name, key in keys.items()}
    whole = np.nan_to_num(column(rows, "step_seconds"))
    return {**phases, "other": np.maximum(whole - sum(phases.values(), start=np.zeros_like(whole)), 0.0)}


def _finish(axes: Axes, run: RunData, title: str, y: str, positive: Sequence[float] | np.ndarray) -> None:
    heading(axes, title, y)
    token_axis(axes)
    if len(positive):
        positive_axis(axes, positive)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    _stage_bands(axes, run)


def _stage_bands(axes: Axes, run: RunData) -> None:
    """Every other stage shaded, with its name above its band where the band is wide enough."""
    reached = [stage for stage in facts.stages(run) if stage.tokens]
    if len(reached) < 2:
        return
    end = reached[-1].last_token
    axes.set_xlim(0, end * 1.015)
    figure_width = axes.figure.get_figure(root=True).get_size_inches()[0]
    inches = figure_width * 0.42 if figure_width >= SIDE_BY_SIDE else figure_width * 0.85
    for index, stage in enumerate(reached):
        if index % 2:
            axes.axvspan(stage.first_token, stage.last_token, color=BAND, linewidth=0, zorder=0)
        if stage.tokens / end * inches > 0.08 * len(short(stage.name)):
            middle = (stage.first_token + stage.last_token) / 2
            axes.set_title(axes.get_title(loc="left"), loc="left", pad=19)
            axes.annotate(
                short(stage.name),
                (middle, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8.5,
                color=MUTED,
            )


def _smooth(run: RunData, values: np.ndarray) -> np.ndarray:
    """Running mean within each stage, as a change of mixture is a step and no slope."""
    rows = run.metrics
    changes = [index for index in range(1, len(rows)) if rows[index].get("stage") != rows[index - 1].get("stage")]
    return np.concatenate([smooth(part, reach=len(values) * 0.015) for part in np.split(values, changes)])


def _faint_and_mean(axes: Axes, run: RunData, values: np.ndarray, colour: str = INK) -> None:
    """Every logged step as a faint line, and the running mean over it."""
    x, raw, mean = thin(column(run.metrics, "tokens"), values, _smooth(run, values))
    axes.plot(x, raw, color=colour, linewidth=0.6, alpha=0.28)
    axes.plot(x, mean, color=colour)


def _validation(run: RunData, source: str, key: str) -> list[tuple[int, float]]:
    """(tokens, value) of each evaluation that scored a source."""
    rows = [(each.get("tokens"), each.get("validation", {}).get(source, {}).get(key)) for each in run.base_evals]
    return [(tokens, value) for tokens, value in rows if tokens is not None and value is not None]


def _source_legend(figure: Figure | SubFigure, run: RunData, width: float, extra: Sequence[tuple[Artist, str]]) -> None:
    entries: list[tuple[Artist, str]] = [
        (Patch(color=colour) if not extra else Line2D([], [], color=colour, linewidth=2.4), name)
        for name, colour in colours(run.sources).items()
    ]
    entries += extra
    if entries:
        legend(figure, [handle for handle, _ in entries], [name for _, name in entries], width)
