"""Figures: what they show of a run, without pyplot and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from smelt.report import plots, score_plots, style
from smelt.report.run import RunData, read_run


@pytest.fixture
def data(run: Path) -> RunData:
    return read_run(run)


def test_every_figure_is_drawn_wide_and_narrow(data: RunData) -> None:
    for draw in (plots.loss, plots.optimizer, plots.throughput, plots.mixture,
                 score_plots.evals, score_plots.posttrain_loss, score_plots.before_after):  # fmt: skip
        for width in (style.WIDE, style.NARROW):
            figure = draw(data, width)
            assert isinstance(figure, Figure) and figure.get_size_inches()[0] == width
            assert "<svg" in style.svg(figure, "label")


def test_the_whole_run_in_one_figure_shows_itself_in_a_notebook(run: Path) -> None:
    figure = plots.plot_run(run)
    titles = {axes.get_title(loc="left") for part in figure.subfigs for axes in part.axes}
    assert titles == {
        "Training loss",
        "Validation",
        "Learning rate",
        "Gradient norm, before clipping",
        "Throughput",
        "Time of a step",
    }
    assert "<svg" in figure._repr_svg_()


def test_the_bigram_of_each_source_is_a_level_line(data: RunData) -> None:
    validation = plots.loss(data).axes[1]
    levels = {line.get_ydata()[0] for line in validation.lines if len(set(line.get_ydata())) == 1}
    assert {2.31, 1.98, 1.41} <= levels


def test_phases_and_other_add_up_to_the_step(data: RunData) -> None:
    phases = plots.phase_seconds(data.metrics)
    whole = [row["step_seconds"] for row in data.metrics]
    np.testing.assert_allclose(sum(phases.values()), whole, rtol=1e-12)


def test_a_loss_that_is_not_a_number_or_not_logged_leaves_a_gap(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[40]["loss"], rows[41]["loss_arithmetic"] = float("nan"), None
    del rows[42]["loss_arithmetic"], rows[43]["grad_norm"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "nan" not in style.svg(plots.loss(read_run(run)), "label").lower()


def test_smoothing_keeps_constants_and_passes_over_gaps() -> None:
    values = np.full(50, 3.0)
    values[10:12] = np.nan
    np.testing.assert_allclose(style.smooth(values, reach=4), 3.0)


def test_thinning_keeps_the_mean_and_bounds_the_points() -> None:
    x = np.arange(10_000.0)
    (thinned,) = style.thin(x)
    assert len(thinned) == style.MAX_POINTS
    assert thinned.mean() == pytest.approx(x.mean())


def test_reports_need_neither_torch_nor_pyplot(run: Path) -> None:
    code = (
        "import sys, pathlib; from smelt.report.html import write_report; from smelt.report.plots import plot_run; "
        "run = pathlib.Path(sys.argv[1]); write_report(run); plot_run(run); "
        "print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
