"""A corpus folder -> `report.html`: one file with everything inline, that opens offline, on a phone, light or dark."""

import difflib
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from smelt.files import write_text
from smelt.report import units
from smelt.report.corpus.bars import HEIGHT, WIDTH, Picture, picture
from smelt.report.corpus.facts import CorpusData, Row, Step, read_corpus

CHARACTERS, CLUSTERS, PER_REASON, QUARANTINED, LANGUAGES, COLOURS = 600, 40, 6, 50, 12, 5
_TEMPLATES = Path(__file__).parent, Path(__file__).parents[1]


def write_corpus_report(folder: Path, out: Path | None = None) -> Path:
    """Write `report.html` into a corpus folder, or `out`, and return its path; InputError for any other folder."""
    page = out or folder / "report.html"
    write_text(page, render(read_corpus(folder)))
    return page


def render(corpus: CorpusData) -> str:
    """The page as a string."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"count": units.count, "percent": _percent, "size": _size, "cut": _cut})
    return environment.get_template("corpus.html.jinja").render(_content(corpus))


def _content(corpus: CorpusData) -> Row:
    ends = [corpus.ends(source) for source in corpus.sources]
    return {
        "corpus": corpus,
        "read": Step("read", sum(read.documents for read, _ in ends), sum(read.bytes for read, _ in ends)),
        "kept": Step("kept", sum(kept.documents for _, kept in ends), sum(kept.bytes for _, kept in ends)),
        "colours": {name: min(index, COLOURS) + 1 for index, name in enumerate(_filters(corpus))},
        "shares": {source: list(_shares(corpus, source)) for source in corpus.sources},
        "lengths": {source: _lengths(corpus, source) for source in corpus.sources},
        "languages": {source: _languages(corpus, source) for source in corpus.sources},
        "scores": {source: list(_scores(corpus, source)) for source in corpus.sources},
        "clusters": corpus.clusters[:CLUSTERS],
        "drops": {source: list(_drops(rows)) for source, rows in corpus.drops.items() if rows},
        "edits": {source: list(_edits(rows)) for source, rows in corpus.edits.items() if rows},
        "quarantine": {source: rows[:QUARANTINED] for source, rows in corpus.quarantine.items() if rows},
        "recipe": json.dumps(corpus.recipe, indent=2, ensure_ascii=False),
        "width": WIDTH,
        "height": HEIGHT,
    }


def _filters(corpus: CorpusData) -> list[str]:
    """What took documents anywhere, most first."""
    taken: dict[str, int] = {}
    for source in corpus.sources:
        for step in corpus.lost(source):
            taken[step.filter] = taken.get(step.filter, 0) + step.documents
    return [name for name, documents in sorted(taken.items(), key=lambda each: -each[1]) if documents]


def _shares(corpus: CorpusData, source: str) -> Iterator[tuple[str, int, float]]:
    """(what, documents, share of those read) of a source's bar: kept first, then what was lost."""
    read, kept = corpus.ends(source)
    yield "kept", kept.documents, kept.documents / max(read.documents, 1)
    lost: dict[str, int] = {}
    for step in corpus.lost(source):
        lost[step.filter] = lost.get(step.filter, 0) + step.documents
    for name, documents in lost.items():
        if documents:
            yield name, documents, documents / max(read.documents, 1)


def _lengths(corpus: CorpusData, source: str) -> Picture | None:
    histogram = corpus.histograms.get(source, {}).get("characters")
    return picture(source, histogram) if histogram else None


def _languages(corpus: CorpusData, source: str) -> list[tuple[str, int, float]]:
    """(code, documents, share), most first; the rest together."""
    counts = corpus.histograms.get(source, {}).get("languages") or {}
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    shown = [(code or "unknown", documents) for code, documents in ordered[:LANGUAGES]]
    if rest := sum(documents for _, documents in ordered[LANGUAGES:]):
        shown.append((f"{len(ordered) - LANGUAGES} more", rest))
    total = max(sum(counts.values()), 1)
    return [(code, documents, documents / total) for code, documents in shown]


def _scores(corpus: CorpusData, source: str) -> Iterator[tuple[str, list[Picture]]]:
    """(filter, its columns) with their thresholds."""
    histograms = corpus.histograms.get(source, {}).get("scores") or {}
    limits = corpus.limits.get(source, {})
    for name, columns in groupby(histograms, key=lambda column: column.rpartition(".")[0]):
        drawn = (
            picture(column.rpartition(".")[2].replace("_", " "), histograms[column], limits.get(column, ()))
            for column in columns
        )
        pictures = [each for each in drawn if each]
        if pictures:
            yield name, pictures


def _drops(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(reason, samples with the scores of the filter that dropped them)."""
    for reason, samples in groupby(rows, key=lambda row: row["reason"]):
        name = reason.partition(":")[0]
        yield (
            reason,
            [
                {**row, "scores": {key: _plain(value) for key, value in _own(row["scores"], name)}}
                for row in list(samples)[:PER_REASON]
            ],
        )


def _own(scores: Row, name: str) -> Iterator[tuple[str, Any]]:
    for key, value in scores.items():
        kind, _, column = key.rpartition(".")
        if kind == name:
            yield column.replace("_", " "), value


def _edits(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(edit, samples as pieces of text that stayed, went or came)."""
    for name, samples in groupby(rows, key=lambda row: row["edit"]):
        shown = list(samples)[:PER_REASON]
        yield name, [{**row, "pieces": list(changes(row["before"], row["after"]))} for row in shown]


def changes(before: str, after: str) -> Iterator[tuple[str, str]]:
    """("same" | "gone" | "new", text) pieces of an edit, word by word.

    Both are cut at the same length: what the new text has at its end, beyond the old one, was there before.
    """
    old, new = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (before, after))
    operations = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for index, (kind, first, last, start, end) in enumerate(operations):
        gone, came = "".join(old[first:last]), "".join(new[start:end])
        at_the_cut = 0 < index == len(operations) - 1 and came.startswith(gone)
        if kind == "equal" or at_the_cut:
            yield "same", came
        else:
            yield from ((name, text) for name, text in (("gone", gone), ("new", came)) if text)


def _plain(value: Any) -> str:
    return units.number(value) if isinstance(value, float) else str(value)


def _percent(share: float) -> str:
    """0.00023 -> "0.02 %": small shares are what a funnel is about."""
    return f"{100 * share:.2f} %" if 0 < share < 0.01 or 0.99 < share < 1 else units.percent(share)


def _size(number: float) -> str:
    """Bytes, as 12.3 MB."""
    short = units.count(number)
    scale = {"k": "kB", "M": "MB", "B": "GB", "T": "TB"}.get(short[-1])
    return f"{short[:-1]} {scale}" if scale else f"{short} B"


def _cut(text: str, characters: int = CHARACTERS) -> str:
    left = len(text) - characters
    return text if left <= 0 else f"{text[:characters]} … ({left:,} more characters)"
