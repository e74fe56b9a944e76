"""What a run's rows amount to: scores against the baseline, before and after, stages, mixture, time and cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import ValidationError

from smelt.recipe.account import parameters
from smelt.recipe.mixtures.weights import scaled
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model
from smelt.report.run import Row, RunData, column

TRAIN_STEPS = ("train", "pretrain", "pretraining")


@dataclass(frozen=True)
class SourceScore:
    """Validation bits per byte of one source at the first and last evaluation, and of the bigram baseline."""

    source: str
    start: float
    end: float
    bigram: float | None
    bytes: int | None
    documents: int | None

    @property
    def gain(self) -> float | None:
        """Share of the bigram's bits that the model saves; negative when the bigram is better."""
        return 1 - self.end / self.bigram if self.bigram else None


@dataclass(frozen=True)
class TaskScores:
    """One task's row of `tasks` for each model that was scored on it, in the order base, then stage by stage."""

    task: str
    metric: str
    chance: float | None
    scores: dict[str, Row]


@dataclass(frozen=True)
class Stage:
    """A stage of training: normalised mixture as planned, caps applied and any ramp done, and as consumed (None where
    not recorded), and its tokens."""

    name: str
    planned: dict[str, float]
    seen: dict[str, float] | None
    first_token: int
    last_token: int

    @property
    def tokens(self) -> int:
        """Tokens of this stage so far."""
        return self.last_token - self.first_token


@dataclass(frozen=True)
class Cost:
    """Time and money of one step of the lifecycle; `money` is None where the recipe has no price."""

    step: str
    seconds: float
    skipped: bool
    money: float | None

    @property
    def hours(self) -> float:
        """Hours of the machine."""
        return self.seconds / 3600


def parameter_count(run: RunData) -> int | None:
    """Parameters of the model, or None where the recipe has no model section or the vocabulary is not known."""
    if run.vocab is None or not run.recipe.get("model"):
        return None
    try:
        return parameters(Model.model_validate(run.recipe["model"]), run.vocab)["total"]
    except ValidationError:
        return None


def plan(run: RunData) -> Plan | None:
    """What the frozen recipe plans, amendments and a trunk's past included; None where it is absent or unreadable."""
    try:
        return Plan(Recipe.model_validate(run.recipe)) if run.recipe.get("train") else None
    except ValueError:
        return None


def status(run: RunData) -> str:
    """ "finished", "not started" or how far the run has come."""
    if not run.metrics:
        return "not started"
    step, planned = run.metrics[-1]["step"], plan(run)
    if planned is None:
        return f"{step:,} steps"
    return "finished" if step >= planned.total_steps else f"{step:,} of {planned.total_steps:,} steps"


def restarts(run: RunData) -> int:
    """How often training was started again."""
    return max(run.life_seconds, default=0)


def source_scores(run: RunData) -> list[SourceScore]:
    """Validation of every source that was scored."""
    scores = []
    for source in run.sources:
        rows = [row for each in run.base_evals if (row := each.get("validation", {}).get(source))]
        rows = [row for row in rows if row.get("bits_per_byte") is not None]
        if rows:
            bigrams = [row["bigram_bits_per_byte"] for row in rows if row.get("bigram_bits_per_byte") is not None]
            first, last = rows[0], rows[-1]
            scores.append(
                SourceScore(
                    source=source,
                    start=first["bits_per_byte"],
                    end=last["bits_per_byte"],
                    bigram=bigrams[-1] if bigrams else None,
                    bytes=last.get("bytes"),
                    documents=last.get("documents"),
                )
            )
    return scores


def task_scores(run: RunData) -> list[TaskScores]:
    """Scores of every model on every task: the base's last evaluation, then each stage of post-training."""
    base = {task: row for each in [*run.base_evals, run.exported] for task, row in each.get("tasks", {}).items()}
    models = {"base": base, **{name: each.get("tasks", {}) for name, each in run.tuned_evals.items()}}
    tasks = dict.fromkeys(task for rows in models.values() for task in rows)
    result = []
    for task in tasks:
        scores = {model: rows[task] for model, rows in models.items() if rows.get(task, {}).get("score") is not None}
        if scores:
            some = next(iter(scores.values()))
            result.append(TaskScores(task, str(some.get("metric", "score")), some.get("chance"), scores))
    return result


def before_after(run: RunData) -> list[TaskScores]:
    """Tasks that a stage of post-training was scored on."""
    return [each for each in task_scores(run) if set(each.scores) - {"base"}]


def stages(run: RunData) -> list[Stage]:
    """Stages that the recipe plans, then any that only the metrics know."""
    train = run.recipe.get("train") or {}
    factors = {source: cap.get("factor", 1.0) for source, cap in (train.get("caps") or {}).items()}
    planned = {
        str(stage.get("name")): scaled(stage.get("mixture") or {}, factors) for stage in train.get("stages") or []
    }
    ends: dict[str, tuple[int, int]] = {}
    for row in run.metrics:
        ends[str(row.get("stage", ""))] = (row["step"], row["tokens"])
    names = list(dict.fromkeys([*planned, *(name for name in ends if name)]))
    whole = plan(run)
    reached = [(0, 0) if whole is None else (whole.first, whole.tokens_before(whole.first))]
    for name in names:
        reached.append(ends.get(name, reached[-1]))
    return [
        Stage(name, _shares(planned.get(name, {})), _seen(run, before[0], after[0]), before[1], after[1])
        for name, (before, after) in zip(names, pairwise(reached), strict=True)
    ]


def consumed(run: RunData) -> dict[str, Row]:
    """Per source what the newest event says of data consumed ("tokens", "epochs"...); {} where none does."""
    known = [each for each in run.events if isinstance(each.get("consumed"), dict)]
    return max(known, key=lambda each: each.get("step", 0))["consumed"] if known else {}


def speed(run: RunData) -> dict[str, float | None] | None:
    """Of the median logged step: tokens per second and the share of forward and backward; and the peak of memory."""
    rates, whole, compute, memory = (
        column(run.metrics, key)
        for key in ("tokens_per_second", "step_seconds", "forward_backward_seconds", "memory_gib")
    )
    if not np.isfinite(rates).any() or not np.isfinite(compute / whole).any():
        return None
    return {
        "tokens_per_second": float(np.nanmedian(rates)),
        "compute": float(np.nanmedian(compute / whole)),
        "memory_gib": float(np.nanmax(memory)) if np.isfinite(memory).any() else None,
    }


def costs(run: RunData) -> list[Cost]:
    """Time of each step of the lifecycle. Training counts all its lives, lost work included."""
    price = (run.recipe.get("infra") or {}).get("price_per_hour")
    seconds = {
        step: (float(timing.get("seconds") or 0), bool(timing.get("skipped"))) for step, timing in run.timings.items()
    }
    if run.train_seconds:
        train = next((step for step in seconds if step in TRAIN_STEPS), "train")
        recorded = 0.0 if seconds.get(train, (0, True))[1] else seconds[train][0]
        seconds[train] = (max(recorded, run.train_seconds), False)
    return [
        Cost(step, 0.0 if skipped else taken, skipped, None if price is None or skipped else price * taken / 3600)
        for step, (taken, skipped) in seconds.items()
    ]


def _shares(weights: Mapping[str, Any]) -> dict[str, float]:
    total = sum(weights.values())
    return {source: weight / total for source, weight in weights.items()} if total else {}


def _seen(run: RunData, first: int, last: int) -> dict[str, float] | None:
    """Shares of tokens consumed after step `first` up to step `last`, from events that carry `consumed`."""
    cumulative = {
        each["step"]: {source: _tokens(value) for source, value in each["consumed"].items()}
        for each in run.events
        if isinstance(each.get("step"), int) and isinstance(each.get("consumed"), dict)
    }
    newest = max((step for step in cumulative if first < step <= last), default=None)
    if newest is None or (first and first not in cumulative):
        return None
    before = cumulative[first] if first else {}
    return _shares({source: tokens - before.get(source, 0.0) for source, tokens in cumulative[newest].items()}) or None


def _tokens(value: Any) -> float:
    return float(value.get("tokens", 0)) if isinstance(value, dict) else float(value)
