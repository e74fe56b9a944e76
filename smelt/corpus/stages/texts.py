"""The first stage: one part of a source is read and edited, and what could not be read is set aside.

Its rows are whole Unicode texts that are not blank; every later stage goes by their order.
"""

import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from smelt.corpus import streams
from smelt.corpus.bad import Bad, written
from smelt.corpus.document import Document
from smelt.corpus.edits.table import EDITS
from smelt.corpus.readers import read
from smelt.corpus.splits import line
from smelt.corpus.stages.folder import part_file, whole_file, write_mark, write_rows
from smelt.corpus.stages.sample import Samples, edit_sample
from smelt.recipe.sections.corpus import Source
from smelt.recipe.sections.edits import AnyEdit

Heard = Callable[[int], None]
QUARANTINED = 1_000
REPORT_EVERY = 256


class Intake:
    """Counts what comes in and what is set aside; `documents()` are those that go on, with text."""

    def __init__(self, source: Source, name: str, seed: int, part: str | None, heard: Heard) -> None:
        self._source, self._name, self._seed, self._part, self._heard = source, name, seed, part, heard
        self.bad: list[dict[str, str]] = []
        self.reasons: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.read = self.bytes = self.blank = self.blank_bytes = self.bad_rows = 0

    def documents(self) -> Iterator[Document]:
        """Documents with text, in which a lone surrogate (half a character, which JSON can carry) becomes U+FFFD."""
        incoming = read(self._source.read, self._name, self._seed, self._part, self._set_aside)
        for document in itertools.islice(incoming, self._source.documents):
            self.read += 1
            if self.read % REPORT_EVERY == 0:
                self._heard(self.read)
            text = document.text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            size = len(text.encode())
            self.bytes += size
            if not text or text.isspace():
                self.blank += 1
                self.blank_bytes += size
                continue
            if language := document.facts.get("language"):
                self.languages[str(language)] += 1
            yield Document(text, document.id, document.source, document.facts)
        self._heard(self.read)

    def counts(self) -> dict[str, Any]:
        """What was counted, for the mark of the part."""
        return {
            "read": {"documents": self.read, "bytes": self.bytes},
            "blank": {"documents": self.blank, "bytes": self.blank_bytes},
            "bad": dict(self.reasons),
            "bad_rows": self.bad_rows,
            "languages": dict(self.languages),
        }

    def _set_aside(self, bad: Bad) -> None:
        self.reasons[bad.reason] += max(1, bad.rows)
        self.bad_rows += bad.rows
        if len(self.bad) < QUARANTINED:
            self.bad.append({"place": bad.place, "reason": bad.reason, "excerpt": bad.excerpt})


def texts_task(settings: dict[str, Any], heard: Heard) -> None:
    """Read part `settings["part"]` of a source, edit it, and write it as part `number` of `folder`."""
    source = Source.model_validate(settings["section"])
    folder, number = Path(settings["folder"]), settings["number"]
    intake = Intake(source, settings["source"], settings["seed"], settings["part"], heard)
    editing = Editing(source.edit)
    kept = write_texts(folder, number, editing.documents(intake.documents()))
    write_rows(part_file(folder, number, ".bad.jsonl"), intake.bad)
    write_rows(part_file(folder, number, ".edits.jsonl"), editing.samples.rows())
    part = written(settings["part"] or "")
    write_mark(folder, number, {"part": part, **intake.counts(), "edits": editing.counts(), "kept": kept})


def write_texts(folder: Path, number: int, documents: Iterator[Document]) -> dict[str, int]:
    """Write a part's rows, and beside them their sizes: int64 [documents, 2], characters and bytes of UTF-8."""
    sizes = array("q")
    with whole_file(part_file(folder, number, ".jsonl.zst")) as path, streams.zstd_writer(path) as file:
        for document in documents:
            sizes.extend((len(document.text), len(document.text.encode())))
            print(line(document), file=file)
    table = np.array(sizes, np.int64).reshape(-1, 2)
    with whole_file(part_file(folder, number, ".sizes.npy")) as path, path.open("wb") as file:
        np.save(file, table, allow_pickle=False)
    return {"documents": len(table), "bytes": int(table[:, 1].sum())}


class Editing:
    """Applies a source's edits in order, and keeps count and samples of what they changed."""

    def __init__(self, sections: tuple[Any, ...]) -> None:
        self._edits = [(section.kind, _edit(section.model_dump_json())) for section in sections]
        self._counts = {kind: {"documents": 0, "bytes": 0, "emptied": 0} for kind, _ in self._edits}
        self._changes: dict[str, Counter[str]] = {kind: Counter() for kind, _ in self._edits}
        self.samples = Samples()

    def documents(self, incoming: Iterator[Document]) -> Iterator[Document]:
        """The documents with their new texts, without those that have none left."""
        for document in incoming:
            text = document.text
            for kind, edit in self._edits:
                text = self._edited(kind, edit, document.id, text)
                if not text:
                    break
            if text:
                yield Document(text, document.id, document.source, document.facts)

    def counts(self) -> dict[str, Any]:
        """For each edit the documents it changed, the bytes it took away, the documents it emptied, its changes."""
        return {kind: {**counts, "changes": self._changes[kind]} for kind, counts in self._counts.items()}

    def _edited(self, kind: str, edit: Callable[[str], Any], name: str, text: str) -> str:
        new, changes = edit(text)
        if new == text:
            return text
        new = "" if new.isspace() else new
        self._counts[kind]["documents"] += 1
        self._counts[kind]["bytes"] += len(text.encode()) - len(new.encode())
        self._counts[kind]["emptied"] += not new
        self._changes[kind].update(changes)
        self.samples.add(kind, name, lambda: edit_sample(kind, name, text, new, changes))
        return new


@lru_cache
def _edit(section: str) -> Callable[[str], Any]:
    parsed: Any = TypeAdapter(AnyEdit).validate_json(section)
    return EDITS[parsed.kind](parsed)
