"""Figures of evaluations and post-training: tasks over tokens, loss of each stage, before against after."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from smelt.report import facts, units
from smelt.report.plots import SIDE_BY_SIDE
from smelt.report.run import Row, RunData, column
from smelt.report.style import (
    GREY,
    INK,
    MUTED,
    PALETTE,
    WIDE,
    canvas,
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


def evals(run: RunData, width: float = WIDE) -> Figure:
    """Score of each task over tokens, with a band of one standard error either side and a line at chance."""
    tasks = list(dict.fromkeys(task for each in run.base_evals for task in each.get("tasks", {})))
    columns = 2 if width < SIDE_BY_SIDE else 4 if len(tasks) == 4 else 3
    rows = -(-max(1, len(tasks)) // columns)
    with drawing():
        figure = canvas(width, 2.5 * rows)
        for axes, task in zip(panels(figure, len(tasks), columns), tasks, strict=True):
            points = [(each["tokens"], each["tasks"][task]) for each in run.base_evals if task in each.get("tasks", {})]
            _trajectory(axes, task, points)
    return figure


def posttrain_loss(run: RunData, width: float = WIDE) -> Figure:
    """Loss of each stage of post-training over its optimizer steps."""
    stages = [stage for stage in run.posttrain if stage.metrics]
    columns = min(2 if width >= SIDE_BY_SIDE else 1, max(1, len(stages)))
    with drawing():
        figure = canvas(width, 2.8 * -(-max(1, len(stages)) // columns))
        for axes, stage in zip(panels(figure, len(stages), columns), stages, strict=True):
            values = column(stage.metrics, "loss")
            steps, raw, mean = thin(column(stage.metrics, "step"), values, smooth(values, reach=len(values) * 0.03))
            axes.plot(steps, raw, color=INK, linewidth=0.6, alpha=0.28)
            axes.plot(steps, mean, color=INK)
            heading(axes, short(stage.name), "nats per token", "steps")
            token_axis(axes)
            positive_axis(axes, values)
    return figure


def before_after(run: RunData, width: float = WIDE) -> Figure:
    """Score of each task for the base model and after each stage of post-training, with standard errors."""
    tasks = facts.before_after(run)
    models = [model for model in ("base", *run.tuned_evals) if any(model in each.scores for each in tasks)]
    palette = dict(zip(models, (GREY, *PALETTE), strict=False))
    bars = sum(len(each.scores) for each in tasks)
    with drawing():
        figure = canvas(width, 0.9 + 0.26 * bars + 0.16 * len(tasks))
        (axes,) = panels(figure, 1, 1)
        position = 0.0
        ticks: list[tuple[float, str]] = []
        handles: Row = {}
        for each in tasks:
            first = position
            for model, row in each.scores.items():
                bar = axes.barh(position, row["score"], height=0.86, color=palette[model])
                handles.setdefault(model, bar)
                _whisker(axes, position, each, row)
                position += 1
            ticks.append(((first + position - 1) / 2, each.task))
            if each.chance:
                axes.plot([each.chance] * 2, [first - 0.5, position - 0.5], color=MUTED, linewidth=1, linestyle=":")
            position += 0.7
        axes.set_yticks([place for place, _ in ticks], [short(name) for _, name in ticks])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xlim(0, max([1.0, *(1.15 * row["score"] for each in tasks for row in each.scores.values())]) * 1.12)
        axes.set_xticks([])
        legend(figure, list(handles.values()), list(handles), width)
    return figure


def _trajectory(axes: Axes, task: str, points: list[tuple[int, Row]]) -> None:
    rows = [row for _, row in points]
    x, y, error = [tokens for tokens, _ in points], column(rows, "score"), column(rows, "stderr")
    metric = str(rows[-1].get("metric", "score"))
    axes.fill_between(x, y - error, y + error, color=PALETTE[0], alpha=0.18, linewidth=0)
    axes.plot(x, y, "o-", color=PALETTE[0], markersize=3.5)
    chance = rows[-1].get("chance")
    if chance:
        axes.axhline(chance, color=MUTED, linewidth=1, linestyle=":")
        axes.annotate(
            "chance",
            (1, chance),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=MUTED,
        )
    heading(axes, short(task), metric.replace("_", " "))
    token_axis(axes)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if units.is_share(metric):
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def _whisker(axes: Axes, position: float, task: facts.TaskScores, row: Row) -> None:
    """The standard error as a thin line over the end of a bar, and the score beside it."""
    score, error = row["score"], row.get("stderr") or 0.0
    if error:
        axes.plot([score - error, score + error], [position] * 2, color=INK, linewidth=1)
    axes.annotate(
        units.score(score, task.metric),
        (score + error, position),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
