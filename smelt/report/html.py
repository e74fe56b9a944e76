"""A run directory -> `report.html`: one file with everything inline, that opens offline, on a phone, light or dark."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from smelt.files import write_text
from smelt.report import facts, plots, score_plots, units
from smelt.report.run import Row, RunData, read_run
from smelt.report.style import NARROW, WIDE, svg

CONVERSATIONS, CHARACTERS, EVENTS, SAMPLES = 24, 2_000, 200, 5
RESTART_KINDS = ("resume", "restart", "fallback", "stop")


def write_report(run: Path) -> Path:
    """Write `report.html` into a run directory and return its path; InputError when there is no such run."""
    page = run / "report.html"
    write_text(page, render(read_run(run)))
    return page


def render(run: RunData) -> str:
    """The page as a string."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (units.count, units.duration, units.percent, units.number, units.score, _clock)
    environment.filters.update({function.__name__.strip("_"): function for function in shown})
    return environment.get_template("report.html.jinja").render(_content(run))


def _content(run: RunData) -> Row:
    costs = facts.costs(run)
    prices = [cost.money for cost in costs if cost.money is not None]
    return {
        "run": run,
        "status": facts.status(run),
        "restarts": facts.restarts(run),
        "parameters": facts.parameter_count(run),
        "tokens": run.metrics[-1]["tokens"] if run.metrics else None,
        "sources": facts.source_scores(run),
        "tasks": facts.before_after(run),
        "stages": facts.stages(run),
        "consumed": facts.consumed(run),
        "speed": facts.speed(run),
        "costs": costs,
        "total_seconds": sum(cost.seconds for cost in costs),
        "total_money": sum(prices) if prices else None,
        "price": (run.recipe.get("infra") or {}).get("price_per_hour"),
        "figures": _figures(run),
        "conversations": list(_conversations(run)),
        "samples": _samples(run),
        "events": run.events[-EVENTS:],
        "environment": list(flat(run.env)),
        "stage_reports": {stage.name: list(flat(stage.report)) for stage in run.posttrain},
        "restart_kinds": RESTART_KINDS,
    }


def _figures(run: RunData) -> dict[str, tuple[Markup, Markup] | None]:
    """Each figure for a wide and for a narrow column, None where the run has nothing to draw."""
    drawn: dict[str, tuple[Any, Callable[..., Figure], str]] = {
        "loss": (run.metrics, plots.loss, "Training loss by source and validation against the bigram baseline"),
        "optimizer": (run.metrics, plots.optimizer, "Learning rate and gradient norm"),
        "throughput": (run.metrics, plots.throughput, "Tokens per second and the time of a step by phase"),
        "mixture": (any(stage.planned for stage in facts.stages(run)), plots.mixture, "Shares of sources by stage"),
        "evals": (any(each.get("tasks") for each in run.base_evals), score_plots.evals, "Scores of tasks over tokens"),
        "posttrain": (any(s.metrics for s in run.posttrain), score_plots.posttrain_loss, "Loss of post-training"),
        "before_after": (facts.before_after(run), score_plots.before_after, "Tasks before and after post-training"),
    }
    return {
        name: (Markup(svg(draw(run, WIDE), label)), Markup(svg(draw(run, NARROW), label))) if there else None
        for name, (there, draw, label) in drawn.items()
    }


def _conversations(run: RunData) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for each in run.conversations[:CONVERSATIONS]:
        yield shortened(each.prompt), [(model, shortened(text)) for model, text in each.answers.items()]


def _samples(run: RunData) -> list[tuple[str, str, list[Row]]]:
    """(model, task, samples) of the base's last evaluation and of each stage of post-training."""
    models = {"base": run.base_evals[-1] if run.base_evals else {}, **run.tuned_evals}
    return [
        (model, task, [_sample(row) for row in rows[:SAMPLES]])
        for model, each in models.items()
        for task, rows in (each.get("samples") or {}).items()
    ]


def _sample(row: Row) -> Row:
    said = {key: shortened(str(row.get(key, ""))) for key in ("prompt", "output", "expected")}
    return {**said, "correct": row.get("correct")}


def shortened(text: str) -> str:
    """At most CHARACTERS characters, so that the page stays small."""
    left = len(text) - CHARACTERS
    return text if left <= 0 else f"{text[:CHARACTERS]} … ({left:,} more characters)"


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted keys and plain words."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, shortened(_words(value))


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return units.number(value) if isinstance(value, float) else str(value)


def _clock(time: Any) -> str:
    """An ISO time to the second; anything else as it is."""
    try:
        return datetime.fromisoformat(str(time)).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return str(time)
