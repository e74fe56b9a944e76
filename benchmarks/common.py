"""What every benchmark shares: turn-by-turn timing, the result rows, and the machine they were measured on."""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def medians(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each case, taken in turns: A B A B."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def row(name: str, unit: str, ours: float, peers: Mapping[str, float], ratio: float, goal: float) -> dict[str, Any]:
    """One result; `ratio` is oriented so that `ratio >= goal` passes."""
    return {"name": name, "unit": unit, "ours": ours, "peers": dict(peers), "ratio": round(ratio, 3), "goal": goal}


def main(measure: Callable[[bool], list[dict[str, Any]]]) -> None:
    """Run a benchmark's `measure(quick)`, print its rows, write them as JSON; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows here")
    options = parser.parse_args()
    facts = {
        "machine": f"{_processor()}, {platform.system()}",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("smelt", "torch", "numpy")},
    }
    rows = [{**each, **facts} for each in measure(options.quick)]
    for each in rows:
        verdict = "ok" if each["ratio"] >= each["goal"] else "MISSED"
        print(
            f"{each['name']}: {each['ours']:.4g} {each['unit']}, ratio {each['ratio']} (goal {each['goal']}) {verdict}"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(any(each["ratio"] < each["goal"] for each in rows))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x {len(names)}" if names else platform.machine()
