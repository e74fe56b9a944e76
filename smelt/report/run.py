"""A run directory -> `RunData`: every file that is there, cleaned of what a crash or a restart leaves behind."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from smelt.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True)
class PosttrainStage:
    """One folder of `posttrain/`: rows of its loss, its own report and its evaluation ({} where absent)."""

    name: str
    metrics: list[Row]
    report: Row
    eval: Row


@dataclass(frozen=True)
class Conversation:
    """One prompt and what each model answered, in the order base, then stage by stage."""

    prompt: str
    answers: dict[str, str]


@dataclass(frozen=True)
class RunData:
    """All that a run directory says. A file that is absent leaves its part empty.

    `exported` is the base model scored on the items of the tuned ones;
    `metrics` holds the last row of each step in order of steps; `life_seconds` the length of each life (restart
    count -> seconds), lost work included; `notes` what could not be read, in plain words.
    """

    path: Path
    recipe: Row
    recipe_text: str
    metrics: list[Row]
    life_seconds: dict[int, float]
    events: list[Row]
    evals: list[Row]
    exported: Row
    posttrain: list[PosttrainStage]
    conversations: list[Conversation]
    timings: dict[str, Row]
    env: Row
    vocab: int | None
    notes: list[str]

    @property
    def name(self) -> str:
        """The recipe's name, else the folder's."""
        return str(self.recipe.get("name") or self.path.resolve().name)

    @property
    def sources(self) -> list[str]:
        """Sources of training and validation text, in a fixed order."""
        stages = (self.recipe.get("train") or {}).get("stages") or []
        planned = [source for stage in stages for source in stage.get("mixture", {})]
        logged = [key.removeprefix("loss_") for row in self.metrics for key in row if key.startswith("loss_")]
        scored = [source for each in self.evals for source in each.get("validation", {})]
        return list(dict.fromkeys([*planned, *logged, *scored]))

    @property
    def train_seconds(self) -> float:
        """Seconds of training over all lives."""
        return sum(self.life_seconds.values())

    @property
    def base_evals(self) -> list[Row]:
        """Evaluations of the model in training, by step."""
        return [each for each in self.evals if each.get("model", "base") == "base"]

    @property
    def tuned_evals(self) -> dict[str, Row]:
        """Evaluation after each stage of post-training, in order."""
        beside = {str(each["model"]): each for each in self.evals if each.get("model", "base") != "base"}
        return {**beside, **{stage.name: stage.eval for stage in self.posttrain if stage.eval}}


def read_run(run: Path) -> RunData:
    """Read a run directory; InputError when there is none. Takes no longer than reading its text files."""
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder; runs are kept in runs/NAME of the project")
    if not (run / "recipe.yaml").is_file() and not (run / "metrics.jsonl").is_file():
        raise InputError(f"{run}: no run, as it has neither recipe.yaml nor metrics.jsonl; name a folder in runs/")
    notes: list[str] = []
    text, recipe = _recipe(run / "recipe.yaml", notes)
    rows = _finished(_lines(run / "metrics.jsonl", notes), "step", "tokens")
    evals = [each for file in sorted((run / "evals").glob("*.json")) if (each := _mapping(file, notes))]
    return RunData(
        path=run,
        recipe=recipe,
        recipe_text=text,
        metrics=_last_per_step(rows),
        life_seconds=_life_seconds(rows),
        events=_lines(run / "events.jsonl", notes),
        evals=sorted((each for each in evals if isinstance(each.get("step"), int)), key=lambda each: each["step"]),
        exported=_mapping(run / "export" / "eval.json", notes),
        posttrain=_posttrain(run / "posttrain", recipe, notes),
        conversations=_conversations(run, notes),
        timings={
            name: value for name, value in _mapping(run / "timings.json", notes).items() if isinstance(value, dict)
        },
        env=_mapping(run / "env.json", notes),
        vocab=_vocab(run, recipe, notes),
        notes=notes,
    )


def column(rows: Sequence[Row], key: str) -> np.ndarray:
    """One key of every row as float64 [rows], NaN where a row has no number."""
    values = (row.get(key) for row in rows)
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=float)


def _recipe(path: Path, notes: list[str]) -> tuple[str, Row]:
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        notes.append(f"{path.name} is not valid YAML ({str(error).splitlines()[0]}); numbers that need it are left out")
        return text, {}
    return text, loaded if isinstance(loaded, dict) else {}


def _lines(path: Path, notes: list[str]) -> list[Row]:
    """Rows of a JSON Lines file. A broken last line is one being written; any other is left out with a note."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = None
            if number < len(lines):
                notes.append(f"{path.name} line {number} was cut short, by a crash or an edit, and is left out")
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _json(path: Path, notes: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        notes.append(f"{path.parent.name}/{path.name} is not valid JSON and was left out")
        return None


def _mapping(path: Path, notes: list[str]) -> Row:
    value = _json(path, notes)
    return value if isinstance(value, dict) else {}


def _finished(rows: list[Row], *keys: str) -> list[Row]:
    return [row for row in rows if all(isinstance(row.get(key), int | float) for key in keys)]


def _last_per_step(rows: Iterable[Row]) -> list[Row]:
    """A restarted run logs some steps again: the last row of a step is the one that lives on."""
    last = {row["step"]: row for row in rows}
    return [last[step] for step in sorted(last)]


def _life_seconds(rows: Iterable[Row]) -> dict[int, float]:
    seconds: dict[int, float] = {}
    for row in rows:
        life = row.get("life", 0)
        seconds[life] = max(seconds.get(life, 0.0), row.get("seconds", 0.0))
    return seconds


def _posttrain(folder: Path, recipe: Row, notes: list[str]) -> list[PosttrainStage]:
    """Stages in the order of the recipe; any others after them, by name."""
    planned = [stage.get("name", "") for stage in (recipe.get("posttrain") or {}).get("stages") or []]
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    names.sort(key=lambda name: planned.index(name) if name in planned else len(planned))
    stages = [
        PosttrainStage(
            name=name,
            metrics=_last_per_step(_finished(_lines(folder / name / "metrics.jsonl", notes), "step")),
            report=_mapping(folder / name / "report.json", notes),
            eval=_mapping(folder / name / "eval.json", notes),
        )
        for name in names
    ]
    return [stage for stage in stages if stage.metrics or stage.report or stage.eval]


def _conversations(run: Path, notes: list[str]) -> list[Conversation]:
    """Both shapes of `conversations.json`, in the run or below `posttrain/`, merged by prompt."""
    below = sorted((run / "posttrain").glob("*/conversations.json"))
    merged: dict[str, dict[str, str]] = {}
    for file in [run / "conversations.json", run / "posttrain" / "conversations.json", *below]:
        rows = _json(file, notes)
        for row in (each for each in rows if isinstance(each, dict)) if isinstance(rows, list) else ():
            prompt = row.get("prompt", row.get("user"))
            answers = row.get("answers") or {"base": row.get("base"), **(row.get("tuned") or {})}
            said = {str(model): str(text) for model, text in answers.items() if text is not None}
            merged.setdefault(str(prompt), {}).update(said)
    return [Conversation(prompt, answers) for prompt, answers in merged.items()]


def _vocab(run: Path, recipe: Row, notes: list[str]) -> int | None:
    """Rows of the embedding: from the newest checkpoint, else the recipe's tokenizer rounded up to 128."""
    for file in sorted((run / "checkpoints").glob("step-*/model.json"), reverse=True):
        if isinstance(vocab := _mapping(file, notes).get("vocab"), int):
            return vocab
    planned = ((recipe.get("tokenizer") or {}).get("train") or {}).get("vocab")
    return -(-planned // 128) * 128 if isinstance(planned, int) else None
