"""Keeps one run going: starts training again after a crash, from its newest whole checkpoint, until it is done."""

import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from smelt.errors import InputError
from smelt.files import MANIFEST
from smelt.infra.job import Job
from smelt.infra.parent import end_with_parent
from smelt.infra.refusal import ERROR_FILE, REFUSED, refusal
from smelt.infra.torchrun import torchrun
from smelt.train.records import event, repair

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds
STOPPED = 130


@dataclass
class Supervisor:
    """Runs a command, again and again while it crashes.

    After `restarts` lives in a row that ended without a new checkpoint the run is given up; a life that saved one
    starts the count anew. Bad input (exit code 2) and a wish to stop are final. The pauses between lives double.
    """

    run: Path
    restarts: int
    say: Callable[[str], None] = lambda text: None
    stop: threading.Event = field(default_factory=threading.Event)
    _child: subprocess.Popen[bytes] | None = None

    def supervise(self, command: Sequence[str], going_on: Sequence[str]) -> int:
        """Start `command`, and after each crash `command` with `going_on` appended; the exit code of the last life."""
        before = {each: signal.signal(each, self._pass_on) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            return self._lives(command, going_on)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _lives(self, command: Sequence[str], going_on: Sequence[str]) -> int:
        again, failures = [*command, *going_on], 0
        while True:
            saved = _newest(self.run)
            code = self._live(command)
            if code in (0, REFUSED, STOPPED):
                return code
            if self.stop.is_set():  # torchrun says 1 when it was asked to stop
                return STOPPED
            failures = failures + 1 if _newest(self.run) == saved else 0
            reason = _in_words(code)
            if failures > self.restarts:
                self._note("give_up", reason, failures=failures)
                self.say(f"training ended with {reason}, {failures} times in a row without a new checkpoint: giving up")
                return code if code > 0 else 128 - code
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, failures - 1))
            self._note("restart", reason, failures=failures, pause_seconds=pause)
            self.say(f"training ended with {reason}; starting again in {pause:.0f} s")
            if self.stop.wait(pause):
                return STOPPED
            command = again

    def _live(self, command: Sequence[str]) -> int:
        """One life; 2 also where torchrun says 1 for a process that refused its input."""
        with tempfile.TemporaryDirectory() as scratch:
            error = Path(scratch) / "error.json"
            self._child = subprocess.Popen(
                command,
                env={**os.environ, ERROR_FILE: str(error)},
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # nothing goes on that nobody watches
            )
            if self.stop.is_set():  # asked while the process was being started
                self._child.terminate()
            code = self._child.wait()
            return REFUSED if code and refusal(error) is not None else code

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Hand a signal to the training process, which saves and leaves; a second Ctrl-C is handed on too."""
        self.stop.set()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _note(self, kind: str, reason: str, **facts: float) -> None:
        self.run.mkdir(parents=True, exist_ok=True)
        repair(self.run / "events.jsonl")
        event(self.run, kind, reason=reason, **facts)


def keep_going(job: Job, resume: bool, options: Sequence[str], say: Callable[[str], None]) -> int:
    """Train `job` on this machine, on as many processes as its recipe asks for, until it is done; the exit code."""
    infra = job.recipe.infra
    if infra.nodes > 1:
        raise InputError(
            f"infra.nodes: {infra.nodes}, but --supervise looks after one machine; start the run with 'smelt launch'"
        )
    alone = [*job.smelt, "train", *job.arguments]
    command = alone if job.processes == 1 else shlex.split(torchrun(job, "--standalone", restarts=0))
    command += [*options, *(["--resume"] if resume else [])]
    return Supervisor(job.run, job.launch.restarts, say).supervise(command, [] if resume else ["--resume"])


def _newest(run: Path) -> int:
    """When the newest checkpoint was finished, whatever its step, as a run may be rewound; 0 where there is none."""
    return max((path.stat().st_mtime_ns for path in (run / "checkpoints").glob(f"step-*/{MANIFEST}")), default=0)


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
