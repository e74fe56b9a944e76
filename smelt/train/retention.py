"""Which checkpoints of a run stay on disk: the only code of the package that removes any, and only of its own run."""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from smelt.files import MANIFEST, read_json
from smelt.recipe.sections.checkpoints import Checkpoints
from smelt.train.checkpoints import checkpoints, step_of


class Retention:
    """Keeps the newest `keep` checkpoints of `run`, every `keep_every`th step, and whatever is held."""

    def __init__(self, run: Path, section: Checkpoints) -> None:
        self._run, self._section = run, section
        self._held: list[Path] = []
        self._lock = threading.Lock()

    def hold(self, path: Path) -> None:
        """Keep a checkpoint while someone reads it."""
        with self._lock:
            self._held.append(path)

    def release(self, path: Path) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._held.remove(path)

    def prune(self, removable: Callable[[Path], bool]) -> None:
        """Remove what need not stay and is `removable`."""
        with self._lock:
            whole = sorted(checkpoints(self._run), key=_age)
            for path in whole[: -self._section.keep]:
                for_good = self._section.keep_every and step_of(path) % self._section.keep_every == 0
                if not for_good and path not in self._held and removable(path):
                    self._remove(path)

    def clear_unfinished(self) -> None:
        """Remove what saves, downloads and removals that were cut short have left."""
        for path in (self._run / "checkpoints").glob(".step-*"):
            self._remove(path)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """A folder to fill, which becomes the checkpoint `path` when the block ends and is removed if it fails.

        What was there before, a damaged checkpoint or one that the run was rewound from, goes only then.
        """
        self._check(path)
        new, old = _hidden(path), _hidden(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        try:
            yield new
            if path.exists():
                os.replace(path, old)
            os.replace(new, path)
        except BaseException:
            self._remove(new)
            raise
        self._remove(old)

    def _remove(self, path: Path) -> None:
        """Hide a checkpoint, so that none is ever seen half removed, and remove it; what the disk will not let go of,
        such as a file that is open elsewhere on NFS, stays hidden until `clear_unfinished`."""
        self._check(path)
        with suppress(OSError):
            if path.is_symlink():
                path.unlink()
            elif path.exists():
                hidden = path if path.name.startswith(".") else _hidden(path)
                os.replace(path, hidden)
                shutil.rmtree(hidden, ignore_errors=True)

    def _check(self, path: Path) -> None:
        folder = self._run / "checkpoints"
        if path.parent != folder or not re.fullmatch(r"\.?step-\d{8}(\..+)?", path.name):
            raise AssertionError(f"{path} is no checkpoint of {self._run}")


def _hidden(path: Path) -> Path:
    """A name beside a checkpoint that is free, and that no reader takes for one."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}")


def _age(path: Path) -> tuple[int, int]:
    """Sorts checkpoints by when they were made: a life that was rewound makes lower steps than the one before."""
    return int(read_json(path / MANIFEST).get("life", 0)), step_of(path)
