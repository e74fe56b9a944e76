"""The heuristic filters beside datatrove's, on one core and the same texts: as datatrove comes, with spaCy's words
(in an environment of its own under ~/.cache/smelt), and with our word splitter in place of spaCy, where both must
decide alike for every document."""

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datatrove_spacy
from common import main, row
from pydantic import TypeAdapter

from smelt.corpus.document import Document
from smelt.corpus.edits.table import EDITS
from smelt.corpus.filters.splitter import split_sentences, split_words
from smelt.corpus.filters.table import FILTERS, reasons
from smelt.recipe.sections.edits import C4Lines
from smelt.recipe.sections.filters import HeuristicFilter

SOURCES = ("en_textbooks", "en_books", "en_technical_peps", "en_technical_eips", "en_wikitext2", "math_textbooks")
FULL_BYTES, QUICK_BYTES, ROUNDS = 5_000_000, 600_000, 3
BATCH = 1_000
PEERS = {
    "gopher-quality": ("GopherQualityFilter", 10.0),
    "gopher-repetition": ("GopherRepetitionFilter", 5.0),
    "c4-quality": ("C4QualityFilter", 10.0),
    "fineweb-quality": ("FineWebQualityFilter", 10.0),
}
AS_IT_COMES, SAME_WORDS, SAME_WORDS_GOAL = "datatrove", "datatrove with our word splitter", 2.0
Decisions = list[bool]
Pass = Callable[[], Decisions]


def texts(size: int) -> list[str]:
    """Documents of SMELT_DATA's English and mathematical sources, as many bytes of each."""
    chosen: list[str] = []
    for source in SOURCES:
        room = size // len(SOURCES)
        with gzip.open(Path(os.environ["SMELT_DATA"], "pretrain", f"{source}.jsonl.gz"), "rt") as rows:
            while room > 0 and (line := next(rows, "")):
                chosen.append(json.loads(line)["text"])
                room -= len(chosen[-1].encode())
    return chosen


def ours(kind: str, chosen: Sequence[str]) -> Pass:
    """Scores and thresholds, and for C4 the edit that belongs to it; proven on these texts beforehand."""
    section = TypeAdapter(HeuristicFilter).validate_python({"kind": kind})
    scorer, edit = FILTERS[kind](section), EDITS["c4-lines"](C4Lines(kind="c4-lines"))

    def decide() -> Decisions:
        kept: Decisions = []
        for start in range(0, len(chosen), BATCH):
            batch = chosen[start : start + BATCH]
            if kind == "c4-quality":
                batch = [edit(text)[0] for text in batch]
            masks = reasons(section, scorer.score([Document(text, "0", "s") for text in batch])).values()
            kept += [not any(verdict) for verdict in zip(*masks, strict=True)]
        return kept

    decide()
    return decide


def with_our_words(name: str, chosen: Sequence[str]) -> Pass:
    """Their filter in this process, its splitters replaced."""
    from datatrove.data import Document as Theirs
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters import (
        c4_filters,
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = lambda text, language: split_words(text)
    c4_filters.split_into_sentences = lambda text, language: split_sentences(text)
    peer = getattr(filters, name)()
    return lambda: [peer.filter(Theirs(text=text, id="0")) is True for text in chosen]


class AsItComes:
    """datatrove with spaCy in a process of its own; `decide` is one pass of a filter and its seconds."""

    def __init__(self, file: Path) -> None:
        self._process = subprocess.Popen(
            datatrove_spacy.command("datatrove_filters.py", str(file), *(name for name, _ in PEERS.values())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=datatrove_spacy.surroundings(),
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"datatrove's process ended with exit code {self._process.wait()}")
        return line

    def decide(self, name: str) -> tuple[float, Decisions]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        seconds, kept = json.loads(self._answer())
        return seconds, kept

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def timed(decide: Pass) -> tuple[float, Decisions]:
    start = time.perf_counter()
    kept = decide()
    return time.perf_counter() - start, kept


def rows(quick: bool) -> list[dict[str, Any]]:
    """MB of text a second, two rows a filter: beside datatrove as it comes, and beside it with our words."""
    chosen = texts(QUICK_BYTES if quick else FULL_BYTES)
    megabytes = sum(len(text.encode()) for text in chosen) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "texts.json")
        file.write_text(json.dumps(chosen))
        peer = _start(file)
        measured = [each for kind in PEERS for each in _rows_of(kind, chosen, megabytes, peer, 1 if quick else ROUNDS)]
        if peer:
            peer.end()
    return measured


def _start(file: Path) -> AsItComes | None:
    try:
        return AsItComes(file)
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        print(f"datatrove with spaCy cannot be run: {error}", file=sys.stderr)
        return None


def _rows_of(
    kind: str, chosen: Sequence[str], megabytes: float, peer: AsItComes | None, rounds: int
) -> Iterator[dict[str, Any]]:
    name, goal = PEERS[kind]
    mine, same_words = ours(kind, chosen), with_our_words(name, chosen)
    results: list[dict[str, tuple[float, Decisions]]] = []
    for _ in range(rounds):
        turn = {"ours": timed(mine), SAME_WORDS: timed(same_words)}
        if peer:
            turn[AS_IT_COMES] = peer.decide(name)
        if turn["ours"][1] != turn[SAME_WORDS][1]:
            raise SystemExit(f"{kind}: the decisions are not datatrove's")
        results.append(turn)
    speeds = {case: megabytes / statistics.median(turn[case][0] for turn in results) for case in results[0]}
    if peer:
        alike = sum(a == b for a, b in zip(results[0]["ours"][1], results[0][AS_IT_COMES][1], strict=True))
        print(f"{kind}: {alike} of {len(chosen)} decisions as with spaCy's words", flush=True)
    for case, target in ((AS_IT_COMES, goal), (SAME_WORDS, SAME_WORDS_GOAL)):
        theirs = {case: speeds[case]} if case in speeds else {}
        ratio = speeds["ours"] / theirs[case] if theirs else 0.0  # an absent peer fails
        yield row(f"{kind} beside {case}", "MB/s", speeds["ours"], theirs, ratio, target)


if __name__ == "__main__":
    main(rows)
