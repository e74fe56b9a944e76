"""The picture of a data plan: the mixture over the tokens of a run, and how often each source is gone through."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from smelt.recipe.mixtures.demand import MANY_EPOCHS
from smelt.report import units
from smelt.report.style import GREY, INK, MUTED, PALETTE, WIDE, canvas, drawing, heading, legend, short, token_axis

_MANY = 14  # sources beyond which bars are for the largest only


def plan_figure(account: Mapping[str, Any], classes: Mapping[str, tuple[str, ...]], width: float = WIDE) -> Figure:
    """Of what `smelt.dataset.account.account` gives: shares by class (by source where there are none) over tokens, and
    a bar a source, in epochs where sizes are known and else in tokens."""
    sources = sorted(account["sources"], key=lambda name: -account["sources"][name]["tokens"])
    groups = _groups(list(account["sources"]), sources, classes)
    bars = sources[:_MANY]
    with drawing():
        figure = canvas(width, 3.4 + 0.26 * len(bars))
        top, bottom = figure.subplots(2, 1, height_ratios=(2.9, 0.5 + 0.26 * len(bars)))
        _draw_mixture(top, account, groups)
        _draw_bars(bottom, account, bars, groups, len(sources))
        handles = [Patch(facecolor=_colour(index)) for index in range(len(groups))]
        legend(figure, handles, list(groups), width)
    return figure


def _groups(drawn: list[str], largest: list[str], classes: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """What gets a colour -> its sources: classes, then sources of none, where they are many the largest and the others
    together."""
    listed = {source for each in classes.values() for source in each}
    groups = {name: [source for source in drawn if source in each] for name, each in classes.items()}
    loose = [source for source in largest if source not in listed]
    room = max(1, len(PALETTE) - len(groups))
    kept = loose if len(loose) <= room else loose[: room - 1]
    groups |= {source: [source] for source in drawn if source in kept}
    if len(kept) < len(loose):
        groups["others"] = loose[len(kept) :]
    return {name: each for name, each in groups.items() if each}


def _draw_mixture(axes: Axes, account: Mapping[str, Any], groups: Mapping[str, list[str]]) -> None:
    edges = [row["first_token"] for row in account["curve"]] + [account["curve"][-1]["last_token"]]
    below = np.zeros(len(account["curve"]))
    for index, sources in enumerate(groups.values()):
        part = np.array([sum(row["shares"].get(source, 0.0) for source in sources) for row in account["curve"]])
        axes.stairs(100 * (below + part), edges, baseline=100 * below, fill=True, color=_colour(index), linewidth=0)
        below = below + part
    first = edges[0]
    for number, stage in enumerate(account["stages"]):
        if number:
            axes.axvline(first, color=INK, linewidth=0.8)
        middle = first + stage["tokens"] / 2
        axes.text(middle, 102, short(stage["name"]), ha="center", va="bottom", color=MUTED, fontsize=8.5, clip_on=False)
        first += stage["tokens"]
    heading(axes, f"What each stage of {short(account['name'])} draws from", "% of windows")
    axes.title.set_position((0, 1.12))
    axes.set_title(axes.get_title(loc="left"), loc="left", pad=20)
    axes.set_ylim(0, 100)
    token_axis(axes)
    axes.set_xlim(edges[0], edges[-1])


def _draw_bars(
    axes: Axes, account: Mapping[str, Any], bars: list[str], groups: Mapping[str, list[str]], count: int
) -> None:
    of = {source: index for index, each in enumerate(groups.values()) for source in each}
    known = all(account["sources"][source]["epochs"] is not None for source in bars)
    key = "epochs" if known else "tokens"
    places = np.arange(len(bars))[::-1]
    values = [account["sources"][source][key] for source in bars]
    axes.barh(places, values, height=0.62, color=[_colour(of[source]) for source in bars])
    for place, value in zip(places, values, strict=True):
        text = f"{value:.2g}" if known else units.count(value)
        axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", color=MUTED, fontsize=8)
    axes.set_yticks(places, [short(source) for source in bars])
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    shown = "" if count == len(bars) else f", the {len(bars)} largest of {count} sources"
    if known:
        axes.axvline(MANY_EPOCHS, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        heading(axes, f"Epochs at the end of the plan{shown}", "", f"epochs (dashed: {MANY_EPOCHS:g})")
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
        heading(axes, f"Tokens over the whole plan{shown}", "", "tokens")


def _colour(index: int) -> str:
    return (*PALETTE, GREY)[min(index, len(PALETTE))]
