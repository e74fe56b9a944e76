"""What tests see of a run while it is killed and started again: its checkpoints, its processes, its records."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

LONG = ["train.checkpoints.every_steps=20", "evals.every_steps=10000", "evals.items=1"]
TWO = ["infra.gpus_per_node=2", "infra.micro_batch=4"]
CALM = {**os.environ, "OMP_NUM_THREADS": "1"}


def until(true: Callable[[], object], seconds: float = 300) -> None:
    """Wait for something that must come."""
    for _ in range(int(seconds * 5)):
        if true():
            return
        time.sleep(0.2)
    raise AssertionError("it never came")


def get_further(run: Path) -> None:
    """Wait until a run has saved something new."""
    before = newest(run)
    until(lambda: newest(run) > before)


def newest(run: Path) -> str:
    """Name of the newest finished checkpoint."""
    return max((path.parent.name for path in run.glob("checkpoints/step-*/manifest.json")), default="")


def workers(name: str) -> list[int]:
    """The training processes of a run."""
    return [pid for pid, line in _processes(name) if "torch.distributed.run" not in line and "--supervise" not in line]


def agent(name: str) -> int:
    """The torchrun that started them."""
    (pid,) = (pid for pid, line in _processes(name) if "torch.distributed.run" in line and "srun " not in line)
    return pid


def _processes(name: str) -> list[tuple[int, str]]:
    listed = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True).stdout.splitlines()
    found = [each for each in listed if "-m smelt.cli.main train" in each and f" name={name} " in each]
    return [(int(each.split()[0]), each) for each in found]


def losses(run: Path) -> dict[int, float]:
    """The last word on the loss of each step."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}


def turns(run: Path) -> list[str]:
    """How the lives of a run began and ended."""
    kinds = [json.loads(row)["kind"] for row in (run / "events.jsonl").read_text().splitlines()]
    return [kind for kind in kinds if kind in ("start", "resume", "restart", "stop", "done")]
