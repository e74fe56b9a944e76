"""The stages that remove repeated lines: each part counts its lines, the counts are merged, each part is edited.

Only the merge looks at more than one part; sources that are not compared keep their texts as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smelt.corpus.document import Document
from smelt.corpus.duplicates.lines import LineCounts, LineRemover, compared, repeated
from smelt.corpus.stages.batches import batches
from smelt.corpus.stages.folder import Folder, part_file, whole_file, write_mark, write_rows
from smelt.corpus.stages.sample import Samples, edit_sample
from smelt.corpus.stages.texts import Heard, write_texts
from smelt.recipe.sections.duplicates import Lines

FORMAT = 1
REPEATED = "repeated.npy"


@dataclass(frozen=True)
class Group:
    """Sources whose lines are counted together: their texts, where the counts go, and what is repeated."""

    texts: dict[str, Folder]
    counted: dict[str, Folder]
    repeated: Folder
    edited: dict[str, Folder]

    def first_part(self, source: str) -> int:
        """The number of a source's first part among those of all sources of the group."""
        before = list(self.texts)[: list(self.texts).index(source)]
        return sum(len(self.texts[name].marks()) for name in before)

    def merge(self, section: Lines) -> None:
        """Find the repeated lines, once all parts are counted."""
        parts = [(folder.path, len(folder.marks())) for folder in self.counted.values()]
        files = [part_file(path, number, ".lines") for path, count in parts for number in range(count)]
        with whole_file(self.repeated.path / REPEATED) as path, path.open("wb") as file:
            np.save(file, repeated(section, files), allow_pickle=False)
        self.repeated.finish(0)


def groups(section: Lines, texts: Mapping[str, Folder], root: Path) -> list[Group]:
    """Which sources are compared, and the folders for that."""
    counting = section.model_dump(mode="json", exclude={"max_documents", "sources", "across"})
    found = []
    for names in compared(section, list(texts)):
        chosen = {name: texts[name] for name in names}
        made_from = [FORMAT, [folder.key for folder in chosen.values()], section.model_dump(mode="json")]
        counted = {name: Folder(root, "line-counts", [FORMAT, each.key, counting]) for name, each in chosen.items()}
        edited = {name: Folder(root, "texts", [*made_from, number]) for number, name in enumerate(names)}
        found.append(Group(chosen, counted, Folder(root, "repeated-lines", made_from), edited))
    return found


def lines_count_task(settings: dict[str, Any], heard: Heard) -> None:
    """Count the lines of part `number` of `texts` into `folder`."""
    folder, number = Path(settings["folder"]), settings["number"]
    documents = 0
    with whole_file(part_file(folder, number, ".lines")) as path:
        counts = LineCounts(Lines.model_validate(settings["section"]), path)
        for batch in batches(Path(settings["texts"]), number):
            counts.add([document.text for document in batch])
            documents += len(batch)
            heard(documents)
        counts.close()
    write_mark(folder, number, {"documents": documents})


def lines_edit_task(settings: dict[str, Any], heard: Heard) -> None:
    """Remove the lines of the file `repeated` from part `number` of `texts`, into `folder`."""
    folder, number = Path(settings["folder"]), settings["number"]
    table = np.load(settings["repeated"], allow_pickle=False)
    remover = LineRemover(Lines.model_validate(settings["section"]), table, settings["first_part"] + number)
    removing = _Removing(remover)
    kept = write_texts(folder, number, removing.documents(batches(Path(settings["texts"]), number), heard))
    write_rows(part_file(folder, number, ".edits.jsonl"), removing.samples.rows())
    removed = {"documents": removing.emptied, "bytes": removing.bytes}
    write_mark(folder, number, {"documents": removing.row, "removed": removed, "kept": kept})


class _Removing:
    def __init__(self, remover: LineRemover) -> None:
        self._remover = remover
        self.samples = Samples()
        self.row = self.emptied = self.bytes = 0

    def documents(self, incoming: Iterator[list[Document]], heard: Heard) -> Iterator[Document]:
        """The documents without the lines, and without those that have none left."""
        for batch in incoming:
            for document in batch:
                yield from self._edited(document)
                self.row += 1
            heard(self.row)

    def _edited(self, document: Document) -> Iterator[Document]:
        text, lines = self._remover.edit(self.row, document.text)
        if not lines:
            yield document
            return
        if text.isspace():
            text = ""
        self.bytes += len(document.text.encode()) - len(text.encode())
        changes = {"lines": lines}
        row = edit_sample("lines", document.id, document.text, text, changes)
        self.samples.add("lines", document.id, lambda: row)
        if text:
            yield Document(text, document.id, document.source, document.facts)
        else:
            self.emptied += 1
