"""What is measured of a source, and in which folder each measurement is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smelt.corpus import decontaminate
from smelt.corpus.stages.folder import Folder, mark
from smelt.corpus.stages.tasks import Task
from smelt.files import fingerprint
from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import Corpus, Source

FORMAT = 1


@dataclass(frozen=True)
class Measure:
    """One folder of scores or signatures; `kind` and `section` say how they are made."""

    folder: Folder
    kind: str
    section: str
    made_from: Any

    @classmethod
    def of(cls, root: Path, where: str, kind: str, section: Section, texts: str, made_from: Any) -> "Measure":
        """Of texts with this key, in a folder of `where`; `made_from` is all else that it depends on."""
        folder = Folder(root, where, [FORMAT, texts, made_from])
        return cls(folder, kind, section.model_dump_json(), made_from)

    def keys(self, texts: Sequence[str | None]) -> list[str | None]:
        """Keys of its parts, given those of the texts."""
        return [fingerprint([FORMAT, key, self.kind, self.made_from]) if key else None for key in texts]

    def settings(self) -> dict[str, Any]:
        """What a task takes of it."""
        made_from = fingerprint(self.made_from)
        return {"folder": str(self.folder.path), "kind": self.kind, "section": self.section, "made_from": made_from}


@dataclass(frozen=True)
class Measures:
    """Those of one source: of its filters by name, of each section of `dedup`, and of protected texts."""

    filters: dict[str, Measure]
    duplicates: list[Measure]
    protected: Measure | None

    @classmethod
    def of(cls, corpus: Corpus, source: Source, root: Path, texts: str) -> "Measures":
        """Those that a source needs, of texts with this key. Scores are shared by all thresholds on them."""
        filters: dict[str, Measure] = {}
        for section in source.filter:
            made = Measure.of(root, "scores", "filter", section, texts, section.scoring())
            filters[_new_name(section.kind, filters)] = made
        duplicates = [
            Measure.of(root, "signatures", "duplicates", each, texts, each.model_dump(mode="json", exclude={"across"}))
            for each in corpus.dedup
        ]
        protected = None
        if (against := corpus.decontaminate) is not None:
            made_from = [against.model_dump(mode="json"), decontaminate.inputs(against)]
            protected = Measure.of(root, "scores", "protected", against, texts, made_from)
        return cls(filters, duplicates, protected)

    @property
    def scores(self) -> dict[str, Measure]:
        """Whatever has scores, by name."""
        return {**self.filters, **({"decontaminate": self.protected} if self.protected else {})}

    def missing(self) -> list[Measure]:
        """Those that are not finished, each once."""
        every = [*self.scores.values(), *self.duplicates]
        return list({each.folder.path: each for each in every if not each.folder.finished}.values())


def tasks(source: str, texts: Path, documents: list[int], missing: list[Measure]) -> list[Task]:
    """A task for each part of `texts`, which has so many `documents`, that makes all `missing` measurements at once."""
    if not missing:
        return []
    measures = [each.settings() for each in missing]
    return [
        Task(
            "measure",
            source,
            {"texts": str(texts), "number": number, "documents": count, "measures": measures},
            tuple(str(mark(each.folder.path, number)) for each in missing),
        )
        for number, count in enumerate(documents)
    ]


def _new_name(kind: str, names: dict[str, Measure]) -> str:
    """The kind, numbered from the second on."""
    count = sum(name.split("-#")[0] == kind for name in names)
    return f"{kind}-#{count + 1}" if count else kind
