"""Lets a build of a corpus wait for another one of the same corpus: runs that start together often share theirs."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from smelt.files import disk_errors


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """Hold the file `lock`; yields whether another process held it until now. The file is gone afterwards."""
    with disk_errors(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        with _opened(lock) as file:
            waited = not _taken(file.fileno()) or waited
            if waited:
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _same(file.fileno(), lock):  # removed by the one that held it
                continue
            try:
                yield waited
            finally:
                lock.unlink(missing_ok=True)
            return


def _opened(lock: Path) -> TextIO:
    with disk_errors(lock.parent):
        return lock.open("a")


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(handle: int, path: Path) -> bool:
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
