"""Supervision of processes that crash, refuse, stop or hang on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smelt.marathon import supervise
from smelt.marathon.supervise import Supervisor

# A stand-in for training: appends its arguments to a file, does what the next line of a plan says, and ends.
ACTOR = """\
import os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
lives = folder / "lives"
seen = lives.read_text().splitlines() if lives.exists() else []
lives.write_text("\\n".join([*seen, " ".join(sys.argv[2:]) or "-"]) + "\\n")
act = (folder / "plan").read_text().split()[len(seen)]
if act.startswith("save"):
    step = folder / "checkpoints" / f"step-{len(seen):08d}"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    act = act.removeprefix("save-")
if act == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if act == "waits":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    (folder / "waiting").touch()
    signal.pause()
sys.exit(int(act))
"""


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Plays a plan under supervision; returns (exit code, arguments of each life, events)."""
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.01)

    def play(plan: str, restarts: int = 2):
        (tmp_path / "plan").write_text(plan)
        command = [sys.executable, "-S", "-c", ACTOR, str(tmp_path)]
        code = Supervisor(tmp_path, restarts).supervise(command, ["--resume"])
        lives = (tmp_path / "lives").read_text().splitlines()
        events = tmp_path / "events.jsonl"
        return code, lives, [json.loads(row) for row in events.read_text().splitlines()] if events.exists() else []

    return play


def test_a_crash_is_followed_by_a_life_that_resumes(actor) -> None:
    """MARA-15 (X)."""
    code, lives, events = actor("1 killed 0")
    assert (code, lives) == (0, ["-", "--resume", "--resume"])
    assert [(row["kind"], row["reason"]) for row in events] == [
        ("restart", "exit code 1"),
        ("restart", "signal SIGKILL"),
    ]
    assert events[1]["pause_seconds"] == 2 * events[0]["pause_seconds"]


def test_a_run_that_crashes_without_getting_further_is_given_up(actor) -> None:
    code, lives, events = actor("1 1 killed", restarts=2)
    assert (code, len(lives)) == (128 + signal.SIGKILL, 3)
    assert events[-1]["kind"] == "give_up" and events[-1]["failures"] == 3


def test_a_life_that_saved_a_checkpoint_starts_the_count_anew(actor) -> None:
    code, lives, events = actor("1 save-1 save-killed 1 0", restarts=1)
    assert (code, len(lives)) == (0, 5)
    assert [row["failures"] for row in events] == [1, 0, 0, 1]


def test_a_rewound_run_has_saved_something_new_though_older_checkpoints_have_higher_steps(
    actor, tmp_path: Path
) -> None:
    """MARA-12."""
    before = tmp_path / "checkpoints" / "step-00000099"
    before.mkdir(parents=True)
    (before / "manifest.json").write_text("{}")
    assert actor("save-1 save-1 save-1 0", restarts=1)[0] == 0


@pytest.mark.parametrize("code", [2, 130])
def test_bad_input_and_a_wish_to_stop_are_final(actor, code: int) -> None:
    assert actor(f"{code} 0")[:2] == (code, ["-"])


def test_the_word_to_stop_reaches_training_and_nothing_is_started_again(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("waits 0")
    code = (
        "import sys; from pathlib import Path; from smelt.marathon.supervise import Supervisor\n"
        f"sys.exit(Supervisor(Path({str(tmp_path)!r}), 3).supervise("
        f"[sys.executable, '-S', '-c', {ACTOR!r}, {str(tmp_path)!r}], ['--resume']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: (tmp_path / "waiting").exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert (tmp_path / "lives").read_text() == "-\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is a signal on Linux only")
def test_training_does_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("waits 0")
    code = (
        "import sys; from pathlib import Path; from smelt.marathon.supervise import Supervisor\n"
        f"Supervisor(Path({str(tmp_path)!r}), 3).supervise("
        f"[sys.executable, '-S', '-c', {ACTOR!r}, {str(tmp_path)!r}], [])"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: (tmp_path / "waiting").exists())
    (child,) = children(process.pid)
    process.kill()
    process.wait()
    until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


def until(true) -> None:
    """Wait for something that must come."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(each) for each in listed.split() if os.path.exists(f"/proc/{each}")]
