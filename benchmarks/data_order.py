"""The batch of step 1,000,000,000 of a four-source, three-stage mixture costs what the batch of step 0 does."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import main, medians, row

from smelt.dataset.batches import BatchSource
from smelt.dataset.shards import Shards
from smelt.recipe.schema import Recipe

TOKENS, DOCUMENT = 50_000_000, 1000
FAR = 1_000_000_000
SEVERAL = 10
WITHIN = 0.833  # the far step takes at most 1.2 times as long


def recipe(folder: Path) -> Recipe:
    """Four sources of ready shards, three stages with mixtures of their own; the last one goes beyond the far step."""
    mixtures = [
        {"web": 0.75, "code": 0.12, "math": 0.03, "books": 0.1},
        {"web": 0.63, "code": 0.15, "math": 0.1, "books": 0.12},
        {"web": 0.51, "code": 0.24, "math": 0.13, "books": 0.12},
    ]
    stages = [
        {"name": f"stage-{index}", "steps": steps, "mixture": mixture}
        for index, (steps, mixture) in enumerate(zip((1000, 1000, 2 * FAR), mixtures, strict=True))
    ]
    return Recipe.model_validate(
        {
            "name": "order",
            "dataset": {"shards": {name: str(folder / name) for name in mixtures[0]}},
            "train": {"sequence": 2048, "batch_tokens": 2048 * 64, "stages": stages},
        }
    )


def sparse_shards(folder: Path) -> Shards:
    """A source whose tokens are a sparse file of zeros, cut into documents of equal length."""
    folder.mkdir(parents=True)
    path = folder / "00000.ds"
    with path.open("wb") as file:
        file.truncate(2 * TOKENS)
    np.arange(DOCUMENT, TOKENS + 1, DOCUMENT, dtype="<u8").tofile(f"{path}.index")
    return Shards(folder)


def several(work: Callable[[int], object], first: int) -> None:
    """A few steps in a row, as how often a permutation has to walk differs from step to step."""
    for step in range(first, first + SEVERAL):
        work(step)


def measure(quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        plan = recipe(Path(scratch))
        source = BatchSource(plan, {name: sparse_shards(Path(path)) for name, path in plan.dataset.shards.items()}, 0)
        rows = []
        for name, work in (("windows", source.order.windows), ("batch", source.batch)):
            cases = {"near": partial(several, work, 0), "far": partial(several, work, FAR)}
            seconds = medians(cases, 50 if quick else 200)
            near, far = (1e3 * seconds[case] / SEVERAL for case in ("near", "far"))
            rows.append(row(f"{name} of step {FAR:,}", "ms", far, {"step 0": near}, near / far, WITHIN))
    return rows


if __name__ == "__main__":
    main(measure)
