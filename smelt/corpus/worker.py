"""A process that does tasks: `python -m smelt.corpus.worker` takes them as JSON, a line each, and answers likewise.

Answers are {"documents": so far}, {"done": true}, {"error": a user's mistake} and {"failure": a traceback}.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from smelt.corpus.stages.tasks import Task
from smelt.errors import InputError

_SECONDS = 0.5


def answers(task: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
    """Do a task, and tell of it."""
    told = time.monotonic()

    def heard(documents: int) -> None:
        nonlocal told
        if time.monotonic() - told > _SECONDS:
            told = time.monotonic()
            answer({"documents": documents})

    try:
        Task(**task).perform(heard)
    except InputError as error:
        answer({"error": str(error)})
    except Exception:
        answer({"failure": traceback.format_exc()})
    else:
        answer({"done": True})


def main() -> None:
    """Do tasks until there are no more; what they print goes to stderr."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    try:
        for line in sys.stdin:
            answers(json.loads(line), answer)
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(130)


if __name__ == "__main__":
    main()
