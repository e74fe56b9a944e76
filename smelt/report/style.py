"""How figures look: a palette that colour-blind readers can tell apart (Okabe & Ito 2008), thin lines, plain axes."""

import html
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from smelt.errors import InputError
from smelt.files import disk_errors
from smelt.report import units

WIDE, NARROW = 10.0, 4.0
INK, MUTED, GRID, BAND, PAPER = "#1d2127", "#646d77", "#e1e5e9", "#f5f6f8", "#fefefe"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#8b949e"
MAX_POINTS = 400

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlepad": 9.0,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.0,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
}


class Plot(Figure):
    """A figure outside pyplot's global state that shows itself in a notebook."""

    def _repr_svg_(self) -> str:
        with drawing():
            text = io.StringIO()
            self.savefig(text, format="svg", facecolor="white")
        return text.getvalue()


@contextmanager
def drawing() -> Iterator[None]:
    """The house style while a figure is made or saved."""
    with matplotlib.rc_context(_RC):
        yield


def canvas(width: float, height: float) -> Plot:
    """An empty figure, in inches, whose parts keep out of each other's way."""
    return Plot(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.06))


def panels(figure: Figure | SubFigure, count: int, columns: int) -> list[Axes]:
    """`count` axes of one figure in rows of `columns`, in reading order."""
    rows = -(-count // columns)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for empty in grid[count:]:
        empty.remove()
    return list(grid[:count])


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour a name, by position, so that a source keeps its colour in every figure."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}


def heading(axes: Axes, title: str, y: str, x: str = "tokens") -> None:
    """Title and labels; the unit of y stands beside the title, where it is read first."""
    axes.set_title(title, loc="left")
    axes.set_ylabel(y)
    axes.set_xlabel(x)


def short(name: str) -> str:
    """A name of the user's, cut to what fits beside an axis."""
    return name if len(name) <= 24 else f"{name[:23]}…"


def token_axis(axes: Axes) -> None:
    """Humanised counts along x, starting at zero."""
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
    axes.set_xlim(left=0)
    axes.margins(x=0.015)


def positive_axis(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Log scale with plain numbers where values span more than a factor of three, else linear."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite) & (finite > 0)]
    if finite.size and finite.max() > 3 * finite.min():
        axes.set_yscale("log")
        decades = np.log10(finite.max() / finite.min())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend(figure: Figure | SubFigure, handles: Sequence[Artist], labels: Sequence[str], width: float) -> None:
    """One legend under the whole figure, in as many columns as fit."""
    labels = [short(label) for label in labels]
    longest = max((len(label) for label in labels), default=1)
    columns = max(1, min(len(labels), int(width * 72 / (longest * 5.2 + 40))))
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def thin(x: np.ndarray, *series: np.ndarray) -> tuple[np.ndarray, ...]:
    """At most MAX_POINTS points: the mean of equal runs of rows, absent values (NaN) left out."""
    if len(x) <= MAX_POINTS:
        return (x, *series)
    edges = np.linspace(0, len(x), MAX_POINTS + 1).astype(int)
    return tuple(_means(values, edges) for values in (x, *series))


def smooth(values: np.ndarray, reach: float) -> np.ndarray:
    """Running mean over `reach` rows either side, fewer towards the ends; NaN left out."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(values))
    near = np.minimum(int(reach), np.minimum(index, len(values) - 1 - index))
    first, last = index - near, index + near + 1
    seen = count[last] - count[first]
    return np.where(seen > 0, (total[last] - total[first]) / np.maximum(seen, 1), np.nan)


def svg(figure: Figure, label: str) -> str:
    """A figure as an inline SVG element that scales to its column and follows the page's light or dark colours."""
    with drawing(), matplotlib.rc_context({"svg.hashsalt": f"{label}{figure.get_size_inches()}"}):
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    return _inline(file.getvalue(), label)


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a .png, .svg or .pdf file; InputError for any other name."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path}: a picture's name ends with .png, .svg or .pdf")
    with drawing(), disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, facecolor="white")


def _means(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), edges[:-1])
    count = np.add.reduceat(known.astype(int), edges[:-1])
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


_VARIABLES = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "band": BAND,
    "on-colour": PAPER,
    "grey": GREY,
    **{f"c{index}": colour for index, colour in enumerate(PALETTE)},
}


def _inline(document: str, label: str) -> str:
    """An SVG document as an element of a page: no prologue, fixed size or fonts; colours as variables."""
    root = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', document)
    assert root is not None
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", document[root.end() :], count=1, flags=re.S)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace("\n", ""), body)
    for name, colour in _VARIABLES.items():
        body = body.replace(colour, f"var(--{name})")
    body = body.replace("xlink:href", "href").replace("<g/>\n", "")
    return f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{root[1]}">{body}'
