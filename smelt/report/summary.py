"""A run in a few lines, for the terminal."""

from pathlib import Path

from smelt.report import facts, units
from smelt.report.run import RunData, read_run


def text(run: Path) -> str:
    """A few lines: how far it came, size, time, bits per byte against the bigram, tasks before and after."""
    data = read_run(run)
    lines = [f"{data.name}: {', '.join(_size(data))}"]
    for score in facts.source_scores(data):
        against = f", bigram {units.number(score.bigram)}" if score.bigram is not None else ""
        lines.append(f"  {score.source}: {units.number(score.end)} bits per byte{against}")
    for task in facts.task_scores(data):
        scores = [f"{units.score(row['score'], task.metric)} ({model})" for model, row in task.scores.items()]
        lines.append(f"  {task.task}: {' -> '.join(scores)}")
    return "\n".join([*lines, *(f"  note: {note}" for note in data.notes)])


def _size(run: RunData) -> list[str]:
    parts = [facts.status(run)]
    parameters, restarts = facts.parameter_count(run), facts.restarts(run)
    if parameters is not None:
        parts.append(f"{units.count(parameters)} parameters")
    if run.metrics:
        parts += [f"{units.count(run.metrics[-1]['tokens'])} tokens", units.duration(run.train_seconds)]
    if restarts:
        parts.append("1 restart" if restarts == 1 else f"{restarts} restarts")
    return parts
