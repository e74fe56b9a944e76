"""Batches from uint16 shards, documents told apart: tokens a second and core, near and far, from one source and from
many; packing, and batches of packed windows; and the memory of reading from an index of 1T tokens."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
from common import main, row
from numpy.typing import NDArray

from smelt.dataset.batches import BatchSource
from smelt.dataset.shards import Shards
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.stage import Packing

SEQUENCE, BATCH = 2048, 2**18
TOKENS, DOCUMENT = 2**27, 1024  # of all sources together, which stay in the page cache
FAR = 10**9
SOURCES = (1, 8, 64)
GOAL = 20e6  # tokens a second and core
FLAT = 0.8  # at least this share of the speed of the first steps, or of one source
PACKING, PACKED = 100e6, 0.5  # tokens packed a second and core; share of the speed of concatenated batches
TRILLION, SHARD = 10**12, 2**30
MEMORY = 200  # MB


def recipe(folder: Path, sources: int, packing: Packing = "concatenate") -> Recipe:
    """Equal shares of `sources` folders of shards, for longer than the far step."""
    names = [f"source-{index}" for index in range(sources)]
    stage = {"name": "all", "steps": 2 * FAR, "mixture": dict.fromkeys(names, 1.0)}
    return Recipe.model_validate(
        {
            "name": "loader",
            "dataset": {"shards": {name: str(folder / name) for name in names}},
            "train": {"sequence": SEQUENCE, "batch_tokens": BATCH, "packing": packing, "stages": [stage]},
        }
    )


def even(tokens: int) -> NDArray[np.uint64]:
    """Ends of documents of one length."""
    return np.arange(DOCUMENT, tokens + 1, DOCUMENT, dtype="<u8")


def varied(tokens: int) -> NDArray[np.uint64]:
    """Ends of documents of all lengths, as long on average."""
    ends = np.cumsum(np.random.default_rng(0).geometric(1 / DOCUMENT, 2 * tokens // DOCUMENT))
    return np.append(ends[ends < tokens], tokens).astype("<u8")


def shards(folder: Path, ends: NDArray[np.uint64]) -> Shards:
    """Random tokens in documents with these ends, each closed with 0."""
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0).integers(1, 2**16, int(ends[-1]), dtype=np.uint16)
    drawn[ends - 1] = 0
    drawn.tofile(folder / "00000.ds")
    ends.tofile(folder / "00000.ds.index")
    return Shards(folder)


def source(folder: Path, count: int) -> BatchSource:
    plan = recipe(folder, count)
    opened = {name: shards(Path(path), even(TOKENS // count)) for name, path in plan.dataset.shards.items()}
    return BatchSource(plan, opened, 0)


def speeds(cases: dict[str, tuple[BatchSource, int]], rounds: int) -> dict[str, float]:
    """Tokens a second of CPU time of each case: the median of batches that the cases make in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(-2, rounds):  # the first ones bring files into memory
        for name, (batches, first) in cases.items():
            start = time.process_time()
            batches.batch(first + turn % 8)
            if turn >= 0:
                seconds[name].append(time.process_time() - start)
    return {name: BATCH / float(np.median(each)) for name, each in seconds.items()}


def speed_rows(quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        opened = {count: source(Path(scratch, str(count)), count) for count in SOURCES}
        cases = {f"{count}, {at}": (opened[count], at) for count in SOURCES for at in (8, FAR)}
        found = speeds(cases, 20 if quick else 200)
    rows = []
    for count in SOURCES:
        near, far = (found[f"{count}, {at}"] / 1e6 for at in (8, FAR))
        name = f"{count} sources" if count > 1 else "1 source"
        rows.append(row(f"batches, {name}", "M tokens/s and core", near, {"goal": GOAL / 1e6}, 1e6 * near / GOAL, 1.0))
        rows.append(row(f"step {FAR:,}, {name}", "M tokens/s and core", far, {"step 8": near}, far / near, FLAT))
    one, most = (found[f"{count}, 8"] / 1e6 for count in (SOURCES[0], SOURCES[-1]))
    rows.append(row(f"{SOURCES[-1]} sources", "M tokens/s and core", most, {"1 source": one}, most / one, FLAT))
    return rows


def packed_rows(quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        plans = {packing: recipe(Path(scratch), 1, packing) for packing in get_args(Packing)}
        opened = {"source-0": shards(Path(scratch, "source-0"), varied(TOKENS))}
        start = time.process_time()
        opened["source-0"].packed(plans["best-fit"].dataset.span, SEQUENCE)
        speed = TOKENS / 1e6 / (time.process_time() - start)
        cases = {packing: (BatchSource(plan, opened, 0), 8) for packing, plan in plans.items()}
        found = speeds(cases, 20 if quick else 200)
    packed, plain = (found[packing] / 1e6 for packing in ("best-fit", "concatenate"))
    return [
        row("packing", "M tokens/s and core", speed, {"goal": PACKING / 1e6}, 1e6 * speed / PACKING, 1.0),
        row("packed batches", "M tokens/s and core", packed, {"concatenated": plain}, packed / plain, PACKED),
    ]


def read_a_trillion(folder: Path) -> float:
    """MB by which the memory of this process grows when it opens 1T tokens and reads batches all over them."""
    before = _anonymous()
    plan = recipe(folder, 1)
    batches = BatchSource(plan, {name: Shards(Path(path)) for name, path in plan.dataset.shards.items()}, 0)
    held = [batches.batch(int(step)) for step in np.linspace(0, TRILLION // BATCH, 200)]
    del held[:-2]
    return (_anonymous() - before) / 2**20


def memory_row() -> dict[str, Any]:
    """Sparse files stand in for the shards, and links to one file for their indexes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "source-0")
        folder.mkdir()
        index = Path(scratch, "index")
        even(SHARD).tofile(index)
        for number in range(-(-TRILLION // SHARD)):
            path = folder / f"{number:05d}.ds"
            with path.open("wb") as file:
                file.truncate(2 * SHARD)
            Path(f"{path}.index").hardlink_to(index)
        command = [sys.executable, __file__, "--trillion", scratch]
        grown = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return row("memory growth, 1T tokens", "MB", grown, {"limit": MEMORY}, MEMORY / max(grown, 1.0), 1.0)


def _anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(quick: bool) -> list[dict[str, Any]]:
    return [*speed_rows(quick), *packed_rows(quick), memory_row()]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trillion"]:
        print(read_a_trillion(Path(sys.argv[2])))
    else:
        main(measure)
