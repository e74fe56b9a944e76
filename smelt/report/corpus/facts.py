"""What a corpus folder says of itself; a file that is absent leaves its part of the page out."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smelt.corpus.filters.limits import limits
from smelt.errors import InputError
from smelt.files import check_directory, read_json
from smelt.recipe.sections.corpus import Corpus

Row = dict[str, Any]
ENDS = ("read", "kept")


@dataclass(frozen=True)
class Step:
    """A row of a funnel; `filter` is the part of its name before a colon."""

    step: str
    documents: int
    bytes: int

    @property
    def filter(self) -> str:
        """What groups it with others: a filter's kind, `quarantined`, or the step itself."""
        return self.step.partition(":")[0]


@dataclass(frozen=True)
class CorpusData:
    """The files of a corpus folder, by source where they are."""

    name: str
    recipe: Row
    report: Mapping[str, Mapping[str, Row]]
    funnel: Mapping[str, list[Step]]
    histograms: Mapping[str, Row]
    clusters: list[Row]
    drops: Mapping[str, list[Row]]
    edits: Mapping[str, list[Row]]
    quarantine: Mapping[str, list[Row]]

    @property
    def sources(self) -> list[str]:
        """In the order of the recipe."""
        return list(self.report)

    def ends(self, source: str) -> tuple[Step, Step]:
        """What was read of a source and what is kept; without a funnel the splits say both."""
        steps = {step.step: step for step in self.funnel.get(source, ())}
        splits = self.report[source].values()
        kept = Step("kept", *(sum(split[key] for split in splits) for key in ("documents", "bytes")))
        return steps.get("read", kept), steps.get("kept", kept)

    def lost(self, source: str) -> list[Step]:
        """The steps between, in order."""
        return [step for step in self.funnel.get(source, ()) if step.step not in ENDS]

    def total(self, *filters: str) -> int:
        """Documents that these took from all sources."""
        return sum(step.documents for source in self.sources for step in self.lost(source) if step.filter in filters)

    @cached_property
    def limits(self) -> dict[str, dict[str, list[float]]]:
        """Source -> "filter.column" -> thresholds, as the recipe that built the corpus has them."""
        try:
            corpus = Corpus.model_validate(self.recipe)
        except ValidationError:  # of another release of smelt
            return {}
        return {name: _limits(source.filter) for name, source in corpus.sources.items()}


def read_corpus(folder: Path) -> CorpusData:
    """The folder of a built corpus; InputError when it is not one, or damaged."""
    manifest = check_directory(folder)
    if manifest.get("kind") != "corpus":
        raise InputError(f"{folder}: not a corpus (its manifest says '{manifest.get('kind')}'); name one")
    report = read_json(folder / "report.json")
    funnel = _optional(folder / "funnel.json")
    return CorpusData(
        name=folder.resolve().name,
        recipe=manifest.get("inputs", {}).get("corpus", {}),
        report=report,
        funnel={
            source: [Step(row["step"], row["documents"], row["bytes"]) for row in rows]
            for source, rows in funnel.items()
        },
        histograms=_optional(folder / "histograms.json"),
        clusters=list(_lines(folder / "clusters.jsonl")),
        **{
            each: {source: list(_lines(folder / each / f"{source}.jsonl")) for source in report}
            for each in ("drops", "edits", "quarantine")
        },
    )


def _limits(filters: Any) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    kinds: list[str] = []
    for section in filters:
        kinds.append(section.kind)
        number = kinds.count(section.kind)
        name = section.kind if number == 1 else f"{section.kind}-#{number}"
        found.update({f"{name}.{column}": values for column, values in limits(section).items()})
    return found


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else {}


def _lines(path: Path) -> Iterator[Row]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
