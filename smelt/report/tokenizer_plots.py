"""Figures of the tokenizer lab: tokenizers side by side in every language, and what a larger vocabulary gains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from smelt.report import units
from smelt.report.style import INK, MUTED, PALETTE, WIDE, canvas, colours, drawing, heading, legend, panels, short

TITLES = {
    "fertility": ("Fertility", "tokens a word"),
    "pcw": ("Continued words", "share of words"),
    "bytes_per_token": ("Compression", "bytes a token"),
    "characters_per_token": ("Compression", "characters a token"),
    "megabytes_per_second": ("Speed of encoding", "MB/s"),
}


def comparison(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Bars in groups, a panel a metric: {metric: {tokenizer: {language: value}}}."""
    with drawing():
        figure = canvas(WIDE, 2.7 * len(metrics) + 0.5)
        handles: list[Any] = []
        for axes, (metric, values) in zip(panels(figure, len(metrics), 1), metrics.items(), strict=True):
            handles = _bars(axes, values)
            title, unit = TITLES[metric]
            heading(axes, title, unit, x="")
        legend(figure, handles, list(next(iter(metrics.values()))), WIDE)
    return figure


def vocabulary_sweep(rows: Sequence[Mapping[str, Any]], shares: Sequence[float] | None = None) -> Figure:
    """Tokens of each source over the size of the vocabulary, against those at the smallest; the tokens that each
    doubling saves; and, of a model, the embedding's share of its parameters."""
    with drawing():
        figure = canvas(WIDE, 3.6)
        axes = panels(figure, 3 if shares else 2, 3)
        sizes = [row["ids"] for row in rows]
        handles: list[Any] = []
        for index, (source, colour) in enumerate(colours(rows[0]["tokens"]).items()):
            tokens = [100 * row["tokens"][source] / rows[0]["tokens"][source] for row in rows]
            marker = "os^D"[index // len(PALETTE) % 4]  # the colours come round again
            handles += axes[0].plot(sizes, tokens, color=colour, marker=marker, markersize=4)
        heading(axes[0], f"Tokens against {_ids(sizes[0])} ids", "% of them", x="ids")
        totals = np.array([sum(row["tokens"].values()) for row in rows], dtype=float)
        doublings = np.log2(np.array(sizes[1:]) / np.array(sizes[:-1]))
        saved = 100 * (1 - (totals[1:] / totals[:-1]) ** (1 / doublings))
        bars = axes[1].bar([_ids(size) for size in sizes[1:]], saved, width=0.6, color=INK)
        axes[1].bar_label(bars, fmt="%.1f", color=MUTED, fontsize=8.5, padding=2)
        axes[1].margins(y=0.12)
        heading(axes[1], "Saved by a doubling", "% of tokens", x="ids")
        if shares:
            axes[2].plot(sizes, [100 * share for share in shares], color=INK, marker="o", markersize=3)
            axes[2].set_ylim(bottom=0)
            heading(axes[2], "Embedding", "% of parameters", x="ids")
        for each in (axes[0], *axes[2:]):
            _size_axis(each, sizes)
        legend(figure, handles, list(rows[0]["tokens"]), WIDE)
    return figure


def _bars(axes: Axes, values: Mapping[str, Mapping[str, float]]) -> list[Any]:
    languages = list(dict.fromkeys(language for each in values.values() for language in each))
    width = 0.8 / len(values)
    handles = []
    for index, (name, colour) in enumerate(colours(values).items()):
        at = np.arange(len(languages)) + (index - (len(values) - 1) / 2) * width
        heights = [values[name].get(language, np.nan) for language in languages]
        handles.append(axes.bar(at, heights, width * 0.92, color=colour))
    axes.set_xticks(range(len(languages)), [short(language) for language in languages])
    return handles


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _ids(int(value))))


def _ids(size: int) -> str:
    return f"{size // 1024}Ki" if size % 1024 == 0 else units.count(size)
