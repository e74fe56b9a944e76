"""`metrics.jsonl` and `events.jsonl`: one JSON object a line, appended and flushed, readable while a run goes on."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smelt.files import disk_errors


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one row."""
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def event(run: Path, kind: str, **fields: Any) -> None:
    """Note that something happened to a run: start, stage, checkpoint, resume, fallback, stop, done."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    append(run / "events.jsonl", {"time": now, "kind": kind, **fields})


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a record; a last line that a crash cut short is passed over."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError):
                yield json.loads(line)


def repair(path: Path) -> None:
    """End a record whose last line a crash cut short, so that the next row starts on a line of its own."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
