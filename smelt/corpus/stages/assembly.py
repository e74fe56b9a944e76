"""Puts a corpus together from what the stages left: its splits, and beside them how it came to be.

Everything but the documents is JSON, for reports and for other tools.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from smelt.corpus.splits import Counts, join, with_both
from smelt.corpus.stages import reports
from smelt.corpus.stages.decisions import Cluster, Table
from smelt.corpus.stages.folder import Folder, mark, part_file, read_rows, write_rows
from smelt.corpus.stages.measures import Measures
from smelt.corpus.stages.sample import merged
from smelt.corpus.stages.texts import QUARANTINED
from smelt.corpus.stages.writing import part_folder
from smelt.errors import InputError
from smelt.files import read_json, write_json

Row = dict[str, Any]


@dataclass(frozen=True)
class Came:
    """What came in of one source: the marks of its texts and, where lines are removed, of those; and their folders."""

    marks: Sequence[Row]
    folder: Path
    edited: Sequence[Row] = ()
    edited_folder: Path | None = None


@dataclass(frozen=True)
class Built:
    """What the stages left, by source."""

    came: Mapping[str, Came]
    texts: Mapping[str, Folder]
    measures: Mapping[str, Measures]
    written: Mapping[str, Folder]
    table: Table
    clusters: Sequence[Cluster]


def assemble(out: Path, built: Built) -> dict[str, Counts]:
    """Fill `out`; returns {source: {split: {"documents", "bytes"}}}."""
    report, funnels, histograms = {}, {}, {}
    for name, came in built.came.items():
        texts, written = built.texts[name].path, built.written[name].path
        parts = [part for part, _ in built.table.parts(name)]
        counts = join(out / name, [(part_folder(written, part), read_json(mark(written, part))) for part in parts])
        size = reports.sizes(texts, len(came.marks))
        dropped = reports.dropped(built.table, name, size)
        funnels[name] = reports.funnel(came.marks, came.edited, dropped, total(counts))
        report[name] = settle(name, out / name, counts, funnels[name])
        scores = {kind: each.folder.path for kind, each in built.measures[name].filters.items()}
        histograms[name] = reports.measured(built.table, name, size, came.marks, scores)
        _write_samples(out, name, came, [part_file(written, part, ".drops.jsonl") for part in parts])
    paths = {name: folder.path for name, folder in built.written.items()}
    write_rows(out / "clusters.jsonl", reports.cluster_rows(built.clusters, built.table, paths))
    write_reports(out, report, funnels, histograms)
    return report


def write_reports(out: Path, report: Any, funnels: Any, histograms: Any) -> None:
    """The numbers of a corpus, each by source."""
    for name, value in (("report", report), ("funnel", funnels), ("histograms", histograms)):
        write_json(out / f"{name}.json", value)


def settle(name: str, folder: Path, counts: Counts, funnel: Sequence[Row]) -> Counts:
    """Make sure that both splits of a source have documents; InputError says why that cannot be."""
    try:
        if not any(count["documents"] for count in counts.values()):
            raise InputError(_nothing_left(funnel))
        return with_both(folder, counts)
    except InputError as error:
        raise InputError(f"corpus.sources.{name}: {error}") from error


def total(counts: Counts) -> dict[str, int]:
    """Documents and bytes over both splits."""
    return {each: sum(counted[each] for counted in counts.values()) for each in ("documents", "bytes")}


def write_bad(out: Path, name: str, rows: Iterable[Row]) -> None:
    """The first rows of a source that could not be read."""
    _write(out / "quarantine" / f"{name}.jsonl", list(islice(rows, QUARANTINED)))


def _write_samples(out: Path, name: str, came: Came, drops: Sequence[Path]) -> None:
    parts = range(len(came.marks))
    write_bad(out, name, _rows(part_file(came.folder, part, ".bad.jsonl") for part in parts))
    folders = [came.folder, *([came.edited_folder] if came.edited_folder else [])]
    edits = _rows(part_file(folder, part, ".edits.jsonl") for folder in folders for part in parts)
    _write(out / "edits" / f"{name}.jsonl", merged(edits, "edit"))
    _write(out / "drops" / f"{name}.jsonl", merged(_rows(drops), "reason"))


def _rows(files: Iterable[Path]) -> Iterable[Row]:
    return (row for file in files for row in read_rows(file))


def _write(path: Path, rows: Sequence[Row]) -> None:
    if rows:
        write_rows(path, rows)


def _nothing_left(funnel: Sequence[Row]) -> str:
    drops = [row for row in funnel[1:-1] if row["documents"] and row["step"] != "no text"]
    if not drops:
        return "no document with any text in it; check its path, field and split, or remove the source"
    most = max(drops, key=lambda row: row["documents"])
    return (
        f"no document is left of {funnel[0]['documents']:,}: '{most['step']}' took {most['documents']:,} of them; "
        "loosen that, or remove the source"
    )
