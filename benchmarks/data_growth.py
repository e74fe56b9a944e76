"""Wall time and memory of building a corpus, as it grows: filters, dedup, decontamination, two worker processes.

Time should grow in line with the text, memory not at all. Draws `docs/corpus-growth.png`; `SMELT_DATA` names the folder
of small real datasets, whose paragraphs are put together anew into as many documents as are needed. A size in MB as an
argument builds just that.
"""

import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import main, row

SIZES = (125, 250, 500, 1000)  # MB
PART = 32  # MB
FILES = ("en_textbooks", "en_books", "en_technical_peps", "math_textbooks")
PARAGRAPHS = 24  # of a document: about 7 kB
MEMORY, LINEAR = 1000, 0.8  # MB; the least share of the speed at the smallest size
PICTURE = Path(__file__).parents[1] / "docs" / "corpus-growth.png"
RECIPE = """\
name: growth
corpus:
  sources:
    web:
      read: {{kind: jsonl, path: {folder}}}
      edit: [{{kind: pii}}]
      filter:
        - {{kind: gopher-quality, min_alphabetic_words: 0.5}}
        - {{kind: c4-quality, max_curly_brackets: null}}
        - {{kind: fineweb-quality, max_duplicate_characters: 0.2}}
        - {{kind: symbols}}
  dedup: [{{kind: exact}}, {{kind: minhash}}]
  decontaminate: {{against: [{{path: {protected}, field: question}}]}}
  executor: {{kind: local, workers: 2}}
"""


def write_text(folder: Path, megabytes: int) -> float:
    """Parts of JSON Lines, a tenth of their documents copies of others; returns the MB of text."""
    draw, pool = random.Random(0), list(_paragraphs())
    total, number, recent = 0.0, 0, [""]
    while total < megabytes:
        written = 0.0
        with (folder / f"{number:05d}.jsonl").open("w", encoding="utf-8") as file:
            while written < min(PART, megabytes - total):
                text = "\n\n".join(draw.sample(pool, PARAGRAPHS)) if draw.random() > 0.1 else draw.choice(recent)
                recent = [*recent[-99:], text]
                file.write(json.dumps({"text": text, "id": f"{number}-{written:.6f}"}) + "\n")
                written += len(text.encode()) / 1e6
        total, number = total + written, number + 1
    return total


def built(megabytes: int) -> tuple[float, float, float]:
    """MB of text, seconds to build a corpus of it, and the most memory in MB that all its processes held at once."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "web")
        folder.mkdir()
        size = write_text(folder, megabytes)
        protected = Path(os.environ["SMELT_DATA"], "eval", "gsm8k_test.jsonl.gz")
        recipe = Path(scratch, "recipe.yaml")
        recipe.write_text(RECIPE.format(folder=folder, protected=protected))
        command = [sys.executable, "-m", "smelt", "corpus", "build", str(recipe), "--project", scratch]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        peak = [0.0]
        watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
        watch.start()
        _, said = process.communicate()
        seconds = time.perf_counter() - start
        watch.join()
    if process.returncode:
        raise RuntimeError(f"smelt corpus build failed: {said[-500:]}")
    return size, seconds, peak[0]


def rows(quick: bool) -> list[dict[str, Any]]:
    """Memory at each size against the bound, and time a MB at each size against the smallest."""
    built(2)  # compiles what is compiled once
    measured = [built(size) for size in ((4, 8) if quick else SIZES)]
    if not quick:
        draw(measured)
    first = measured[0][0] / measured[0][1]
    found = []
    for size, seconds, memory in measured:
        name, speed = f"corpus of {round(size):,} MB", size / seconds
        found.append(row(f"{name}, memory", "MB", memory, {"limit": MEMORY}, MEMORY / memory, 1.0))
        found.append(row(f"{name}, speed", "MB/s", speed, {"the smallest": first}, speed / first, LINEAR))
    return found


def draw(measured: list[tuple[float, float, float]], path: Path = PICTURE) -> None:
    """Seconds and MB of memory over MB of text."""
    from smelt.report.style import GREY, INK, canvas, drawing, heading

    sizes, seconds, memory = zip(*measured, strict=True)
    with drawing():
        figure = canvas(9, 3.4)
        left, right = figure.subplots(1, 2)
        slope = sum(a * b for a, b in zip(sizes, seconds, strict=True)) / sum(size**2 for size in sizes)
        left.plot([0, sizes[-1]], [0, slope * sizes[-1]], "--", color=GREY)
        left.plot(sizes, seconds, "o-", color=INK)
        right.axhline(MEMORY, linestyle="--", color=GREY)
        right.annotate("limit", (sizes[0], MEMORY), (0, 4), textcoords="offset points")
        right.plot(sizes, memory, "o-", color=INK)
        heading(left, f"Time to build a corpus: {1 / slope:.1f} MB/s", "seconds", "MB of text")
        heading(right, "Memory of all its processes", "MB", "MB of text")
        left.set(xlim=(0, None), ylim=(0, None))
        right.set(xlim=(0, None), ylim=(0, 1.15 * max(MEMORY, *memory)))
        figure.savefig(path, dpi=150, facecolor="white")


def _paragraphs() -> Iterator[str]:
    for name in FILES:
        with gzip.open(Path(os.environ["SMELT_DATA"], "pretrain", f"{name}.jsonl.gz"), "rt", encoding="utf-8") as file:
            for line in file:
                yield from (each for each in json.loads(line)["text"].split("\n\n") if 100 < len(each) < 2000)


def _watch(process: "subprocess.Popen[str]", peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_held, _family(process.pid))) / 1e6)
        time.sleep(0.2)


def _family(process: int) -> Iterator[int]:
    yield process
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{process}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has ended since
        return
    for child in children:
        yield from _family(child)


def _held(process: int) -> int:
    """Bytes of memory of one process that no file on disk stands behind."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].isdecimal():
        print("{:.0f} MB of text in {:.0f} s, with at most {:.0f} MB of memory".format(*built(int(sys.argv[1]))))
    else:
        main(rows)
