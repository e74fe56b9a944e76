"""What a corpus says of how it came to be, in numbers: funnels, histograms, and clusters of duplicates."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.stages import histograms
from smelt.corpus.stages.decisions import Cluster, Table
from smelt.corpus.stages.folder import part_file, read_rows
from smelt.corpus.stages.measure import read_scores

Row = dict[str, Any]


def funnel(read: Sequence[Row], edited: Sequence[Row], dropped: Iterable[Row], kept: Row) -> list[Row]:
    """Rows {"step", "documents", "bytes"}: what was read, what each step took of it, and what is kept.

    `read` are the marks of a source's texts, `edited` those after repeated lines were removed. The steps take
    exactly what is missing between "read" and "kept": an edit takes bytes from documents that stay.
    """
    bad = Counter[str]()
    for mark in read:
        bad.update(mark["bad"])
    first = _sum(mark["read"] for mark in read)
    edits = [counts for mark in read for counts in mark["edits"].values()]
    emptied = {"documents": sum(each["emptied"] for each in edits), "bytes": sum(each["bytes"] for each in edits)}
    rows = [
        {"step": "read", "documents": first["documents"] + bad.total(), "bytes": first["bytes"]},
        *({"step": f"quarantined: {reason}", "documents": count, "bytes": 0} for reason, count in bad.items()),
        {"step": "no text", **_sum(mark["blank"] for mark in read)},
        {"step": "emptied by edits", **emptied},
        {"step": "lines", **_sum(mark["removed"] for mark in edited)},
    ]
    told = [row for row in rows if row["step"] == "read" or row["documents"] or row["bytes"]]
    return [*told, *dropped, {"step": "kept", **kept}]


def sizes(folder: Path, parts: int) -> NDArray[np.int64]:
    """Characters and bytes of a source's texts: int64 [documents, 2]."""
    loaded = [np.load(part_file(folder, part, ".sizes.npy"), allow_pickle=False) for part in range(parts)]
    return np.concatenate([np.zeros((0, 2), np.int64), *loaded])


def dropped(table: Table, source: str, size: NDArray[np.int64]) -> list[Row]:
    """Rows of the funnel for what dropped documents, in order."""
    codes = table.codes[table.whole(source)]
    documents = np.bincount(codes, minlength=len(table.steps[source]) + 1)
    taken = np.bincount(codes, weights=size[:, 1], minlength=len(documents))
    return [
        {"step": step, "documents": int(documents[number]), "bytes": int(taken[number])}
        for number, step in enumerate(table.steps[source], 1)
    ]


def measured(
    table: Table, source: str, size: NDArray[np.int64], read: Sequence[Row], scores: Mapping[str, Path]
) -> Row:
    """The histograms of one source, and its documents by language, where that is known."""
    kept = table.codes[table.whole(source)] == 0
    found: Row = {"characters": histograms.lengths(size[:, 0], kept), "languages": {}, "scores": {}}
    languages = Counter[str]()
    for mark in read:
        languages.update(mark["languages"])
    start = table.whole(source).start
    places = [(part, slice(place.start - start, place.stop - start)) for part, place in table.parts(source)]
    for name, folder in scores.items():
        names = _columns(folder, [part for part, _ in places])
        if "language" in names:
            languages = Counter()
            for part, _ in places:
                languages.update(read_scores(folder, part, ["language"])["language"].tolist())
        for column in names:
            histogram = histograms.scores(partial(_values, folder, column, places, kept))
            if histogram:
                found["scores"][f"{name}.{column}"] = histogram
    return {**found, "languages": dict(languages.most_common())}


def cluster_rows(clusters: Sequence[Cluster], table: Table, written: Mapping[str, Path]) -> list[Row]:
    """Rows {"kind", "size", "kept", "dropped"} with the texts of the documents, which the last stage has set aside."""
    held: dict[tuple[str, int], dict[int, Row]] = {}

    def shown(index: int) -> Row:
        source, part, row = table.where(index)
        if (source, part) not in held:
            rows = read_rows(part_file(written[source], part, ".shown.jsonl"))
            held[source, part] = {each["row"]: each for each in rows}
        found = held[source, part][row]
        return {"source": source, "id": found["id"], "text": found["text"]}

    return [
        {
            "kind": each.kind,
            "size": each.size,
            "kept": shown(each.kept),
            "dropped": [shown(index) for index in each.dropped],
        }
        for each in clusters
    ]


def _values(
    folder: Path, column: str, places: Sequence[tuple[int, slice]], kept: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """A column of numbers and which of its documents are kept, part by part; nothing for a column of words."""
    for part, place in places:
        values = read_scores(folder, part, [column])[column]
        if values.dtype.kind in "biuf":
            yield values, kept[place]


def _columns(folder: Path, parts: Sequence[int]) -> list[str]:
    return list(read_scores(folder, parts[0])) if parts else []


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = {"documents": 0, "bytes": 0}
    for each in counts:
        total["documents"] += each["documents"]
        total["bytes"] += each["bytes"]
    return total
