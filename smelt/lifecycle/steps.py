"""Steps that remember: what each was made from, how long it took, and whether it can be skipped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smelt.files import read_json, write_json
from smelt.lifecycle.artifacts import ensure

LINE_SECONDS = 20.0


class Steps:
    """Runs named steps and records them in a file: `{name: {"key", "seconds", "skipped"}}`.

    A step whose key is on record, and whose output is there, is skipped, and its record stays; "skipped" on record
    means that another run made what this one uses.
    """

    def __init__(self, record: Path, say: Callable[[str], None]) -> None:
        self._record = record
        self._say = say
        self.seconds: dict[str, dict[str, object]] = read_json(record) if record.is_file() else {}
        self.ran: list[str] = []

    def shared(self, name: str, path: Path, build: Callable[[Path], object]) -> Path:
        """A step whose output is an artifact: its folder's name is the key."""
        if path.exists():
            ensure(name, path, build)
            self._skip(name, path.name)
        else:
            self._run(name, path.name, lambda: build(path))
        return path

    def own(self, name: str, key: str, there: bool, work: Callable[[], object]) -> None:
        """A step of this run alone; `there` tells whether its output still exists."""
        if self.done(name, key, there):
            self._skip(name, key)
        else:
            self._run(name, key, work)

    def done(self, name: str, key: str, there: bool) -> bool:
        """Whether `own` would skip a step."""
        return there and self.seconds.get(name, {}).get("key") == key

    def heard(self, name: str) -> Callable[[dict[str, Any]], None]:
        """A progress callback for rows {"step", "steps", "loss"}: says one of them every `LINE_SECONDS`."""
        last = time.monotonic()

        def hear(row: dict[str, Any]) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_SECONDS:
                last = time.monotonic()
                self._say(f"  {name} step {row['step']}/{row['steps']}  loss {row['loss']:.3f}")

        return hear

    def _run(self, name: str, key: str, work: Callable[[], object]) -> None:
        self._say(f"{name}: working")
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        self.ran.append(name)
        self._note(name, {"key": key, "seconds": round(seconds, 3), "skipped": False})
        self._say(f"{name}: done in {seconds:.1f} s")

    def _skip(self, name: str, key: str) -> None:
        if self.seconds.get(name, {}).get("key") != key:
            self._note(name, {"key": key, "seconds": 0.0, "skipped": True})
        self._say(f"{name}: unchanged, skipped")

    def _note(self, name: str, entry: dict[str, object]) -> None:
        self.seconds[name] = entry
        write_json(self._record, self.seconds)
