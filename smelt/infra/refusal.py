"""How bad input reaches whoever restarts processes, as another try would not mend it; torchrun hides exit codes."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

from smelt.errors import InputError
from smelt.infra.parent import end_with_parent

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
REFUSED = 2  # the exit code of bad input


@contextmanager
def under_agent() -> Iterator[None]:
    """Around what torchrun may have started: ends with it, tells it of bad input, and refuses once what was refused."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    end_with_parent(SIGKILL)
    try:
        message = refused_before()
        if message is not None:
            raise InputError(message)
        yield
    except InputError as error:
        refuse(str(error))
        raise


def refuse(message: str) -> None:
    """Tell the agent that started this process why it ends."""
    path = os.environ.get(ERROR_FILE)
    if path:
        details = {"message": message, "errorCode": REFUSED, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": details}), encoding="utf-8")


def refused_before() -> str | None:
    """Why a process of this machine refused to go on in an earlier life of this job: to ask again changes nothing.

    torchrun restarts whatever fails; its error files lie at `.../attempt_LIFE/LOCAL_RANK/error.json`.
    """
    path = os.environ.get(ERROR_FILE)
    if not path or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return None
    for file in sorted(Path(path).parent.parent.parent.glob("attempt_*/*/error.json")):
        message = refusal(file)
        if message is not None:
            return message
    return None


def refusal(error_file: Path) -> str | None:
    """The message of a refusal in an error file that torchrun left; None for any other failure."""
    try:
        details = json.loads(error_file.read_text(encoding="utf-8"))["message"]
        return str(details["message"]) if int(details["errorCode"]) == REFUSED else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
