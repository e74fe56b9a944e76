"""Deduplication and decontamination beside datatrove's, the same text: MB/s of CPU time, recall, precision.

`--picture FILE` draws recall and precision instead. `SMELT_DATA` names the folder of small real datasets.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datatrove_spacy
import numpy as np
from common import main, row
from near_duplicates import LEVELS, Planted, dropped_similarities, planted, recall
from numpy.typing import NDArray

from smelt.corpus import readers, streams
from smelt.corpus.decontaminate import Protected
from smelt.corpus.document import Document
from smelt.corpus.duplicates import minhash, originals, signatures
from smelt.corpus.ngrams import words
from smelt.recipe.sections.duplicates import MinHash
from smelt.recipe.sections.protected import Decontaminate
from smelt.recipe.sections.readers import JsonLines

BATCH = 1000
SECTION = MinHash(kind="minhash")
PEERS = {"datatrove": (), "datatrove, regex words": ("regex",)}
Labels = NDArray[np.int64]


def smelt_dedup(corpus: Path, folder: Path) -> Labels:
    """Read, sign, compare, read again and write what stays; the label of each document is the one it repeats."""
    read = JsonLines(kind="jsonl", path=str(corpus))
    made, held = [], []
    for document in readers.read(read, "web", 0):
        held.append(document.text)
        if len(held) == BATCH:
            made.append(signatures(SECTION, held))
            held = []
    made.append(signatures(SECTION, held))
    table = np.concatenate(made)
    labels = originals(SECTION, table, np.zeros(len(table), np.int64), np.ones(len(table), bool))
    with (folder / "kept.jsonl").open("w", encoding="utf-8") as file:
        for number, document in enumerate(readers.read(read, "web", 0)):
            if labels[number] == number:
                file.write(json.dumps({"text": document.text, "id": document.id}, ensure_ascii=False) + "\n")
    return labels


def datatrove(work: str, corpus: Path, other: Path, *options: Any) -> float:
    """CPU seconds of its deduplication or decontamination; infinite where it cannot be run."""
    try:
        command = datatrove_spacy.command("datatrove_dedup.py", work, str(corpus), str(other), *map(str, options))
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=datatrove_spacy.surroundings())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"datatrove cannot be run: {error}", file=sys.stderr)
        return math.inf
    return float(told.stdout.split()[-1])


def datatrove_dedup(corpus: Path, folder: Path, *options: str) -> tuple[float, Labels]:
    """CPU seconds of its four stages, and labels: its cluster ids, and a number of its own for any other document."""
    seconds = datatrove("dedup", corpus, folder, SECTION.ngram, SECTION.bands, SECTION.rows, *options)
    count = sum(1 for _ in streams.lines(corpus))
    labels = np.arange(count) + count
    if (clusters := folder / "remove" / "000000.clusters").exists():
        ids = np.fromfile(clusters, "<u4").reshape(-1, 2).astype(np.int64)
        labels[ids[:, 0]] = ids[:, 1]
    return seconds, labels


def cpu_seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """The median of CPU time, which what else the machine does disturbs less."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def compare(quick: bool) -> tuple[Planted, dict[str, float], dict[str, Labels]]:
    """Megabytes a second of CPU time, and labels, of each deduplication."""
    corpus = planted(3 if quick else 33, 20 if quick else 400)
    labels: dict[str, Labels] = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "corpus", "corpus.jsonl")
        file.parent.mkdir()
        corpus.write(file)

        def ours() -> None:
            labels["smelt"] = smelt_dedup(file, Path(scratch))

        ours()  # compiles, and proves the compiled loops equal to the plain ones
        seconds = {"smelt": cpu_seconds(ours)}
        for name, options in PEERS.items():
            folder = Path(scratch, name)
            folder.mkdir()
            seconds[name], labels[name] = datatrove_dedup(file, folder, *options)
    return corpus, {name: corpus.megabytes / each for name, each in seconds.items()}, labels


def dedup_rows(quick: bool) -> list[dict[str, Any]]:
    corpus, speeds, labels = compare(quick)
    ours = speeds["smelt"]
    rows = [
        row(f"MinHash dedup, beside {peer}", "MB/s", ours, {peer: speeds[peer]}, _ratio(ours, speeds[peer]), 10)
        for peer in PEERS
    ]
    found = {name: float(np.mean([*recall(corpus, each).values()])) for name, each in labels.items()}
    exact = {name: float(np.mean([*(dropped_similarities(corpus, each) >= 0.5)] or 0)) for name, each in labels.items()}
    for name, unit, share, goal in (
        ("recall of planted near-duplicates", "share, mean over levels", found, 0.95 if quick else 0.98),
        ("precision: dropped documents of similarity 0.5 or more", "share", exact, 0.98),
    ):
        peer = {"datatrove": share["datatrove"]}
        rows.append(row(name, unit, share["smelt"], peer, _ratio(share["smelt"], share["datatrove"]), goal))
    return [*rows, _rensa_row(corpus)]


def _rensa_row(corpus: Planted) -> dict[str, Any]:
    """Signatures alone: rensa is given its shingles as strings, since that is what it takes."""
    import rensa

    def theirs() -> None:
        for text in corpus.texts:
            split = words(text)
            sketch = rensa.RMinHash(num_perm=SECTION.bands * SECTION.rows, seed=1)
            sketch.update([" ".join(split[at : at + SECTION.ngram]) for at in range(len(split) - SECTION.ngram + 1)])
            sketch.digest()

    def ours() -> None:
        for first in range(0, len(corpus.texts), BATCH):
            minhash.fast(corpus.texts[first : first + BATCH], SECTION.ngram, SECTION.bands, SECTION.rows)

    speed, peer = (corpus.megabytes / cpu_seconds(work) for work in (ours, theirs))
    return row("MinHash signatures, beside rensa", "MB/s", speed, {"rensa": peer}, speed / peer, 1)


def decontamination_rows(quick: bool) -> list[dict[str, Any]]:
    """Against the questions of GSM8K's test set; datatrove's filter, its index made beforehand."""
    protected = Path(os.environ["SMELT_DATA"], "eval", "gsm8k_test.jsonl.gz")
    section = Decontaminate.model_validate({"against": [{"path": str(protected), "field": "question"}]})
    corpus = planted(2 if quick else 8, 0)
    documents = [Document(text, str(number), "web") for number, text in enumerate(corpus.texts)]
    scorer = Protected(section)

    def ours() -> None:
        for first in range(0, len(documents), BATCH):
            scorer.score(documents[first : first + BATCH])

    ours()
    speed = corpus.megabytes / cpu_seconds(ours)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        corpus.write(file := Path(scratch, "corpus.jsonl"))
        for (peer, options), goal in zip(PEERS.items(), (10, 2), strict=True):
            theirs = corpus.megabytes / datatrove("decontaminate", file, protected, section.ngram, *options)
            rows.append(
                row(f"decontamination, beside {peer}", "MB/s", speed, {peer: theirs}, _ratio(speed, theirs), goal)
            )
    return rows


def _ratio(ours: float, theirs: float) -> float:
    """0, which fails, for a peer that could not be run."""
    return ours / theirs if theirs else 0.0


def rows(quick: bool) -> list[dict[str, Any]]:
    """One result a case and peer."""
    return [*dedup_rows(quick), *decontamination_rows(quick)]


def picture(path: Path, quick: bool) -> None:
    """Recall by similarity beside what the bands promise, and how similar dropped documents really are."""
    from smelt.report.style import GREY, canvas, colours, drawing, heading

    corpus, speeds, labels = compare(quick)
    names = {"smelt": labels["smelt"], "datatrove": labels["datatrove"]}
    marks = {"smelt": "o", "datatrove": "x"}
    with drawing():
        figure = canvas(9, 3.6)
        left, right = figure.subplots(1, 2)
        at = np.linspace(min(LEVELS), 1, 200)
        promised = 1 - (1 - at**SECTION.rows) ** SECTION.bands
        left.plot(at, promised, color=GREY, linestyle="--", label="promised by 14 bands of 8")
        similar = np.linspace(0, 1, 201)
        for name, colour in colours(names).items():
            found = recall(corpus, names[name])
            told = f"{name}, {speeds[name]:.3g} MB/s"
            left.plot(list(found), list(found.values()), marks[name], color=colour, label=told)
            dropped = dropped_similarities(corpus, names[name])
            shares = [(dropped >= level).mean() for level in similar]
            right.plot(similar, shares, "-" if name == "smelt" else ":", color=colour, label=name)
        heading(left, "Near-duplicates found", "share of planted pairs", "Jaccard similarity of 5-word shingles")
        heading(right, "Precision", "share of dropped documents", "that are at least so similar to another one")
        left.legend(loc="upper left")
        right.legend(loc="lower left")
        figure.savefig(path, dpi=150, facecolor="white")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--picture"]:
        picture(Path(sys.argv[2]), "--quick" in sys.argv)
    else:
        main(rows)
