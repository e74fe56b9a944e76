"""`smelt report`: the one-file report of a run."""

from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import Json, answer


def report(
    run: Annotated[Path, typer.Argument(help="A run directory, such as runs/demo.")], as_json: Json = False
) -> None:
    """Write RUN/report.html: losses, throughput, mixture, scores, samples, cost; opens offline.

    Example: smelt report runs/demo
    """
    from smelt.report.html import write_report
    from smelt.report.summary import text

    path = write_report(run)
    answer(as_json, {"report": path}, f"{text(run)}\n\nreport: {path}")
