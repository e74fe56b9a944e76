"""Drives the stages: which folders they fill, which tasks are missing there, and what follows from their results.

What is in a folder already is never made again, so a changed recipe costs only what it changes.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from smelt.corpus.bad import written
from smelt.corpus.executors import perform
from smelt.corpus.readers import inputs, parts
from smelt.corpus.splits import Counts
from smelt.corpus.stages import lines
from smelt.corpus.stages import measures as measuring
from smelt.corpus.stages.assembly import Built, Came, assemble
from smelt.corpus.stages.bad_share import check_bad_share
from smelt.corpus.stages.decisions import Cluster, Table, drop_contaminated, drop_duplicates, filter_source
from smelt.corpus.stages.folder import Folder, mark, part_file, read_rows, whole_file
from smelt.corpus.stages.hearing import Hearing, Progress
from smelt.corpus.stages.measures import Measures
from smelt.corpus.stages.tasks import Task
from smelt.files import fingerprint
from smelt.recipe.sections.corpus import Corpus
from smelt.recipe.sections.duplicates import Lines

FORMAT = 2


class Pipeline:
    """Builds one corpus; `root` holds the folders of the stages, where later builds find them.

    `key` names the corpus among others in `root`.
    """

    def __init__(self, corpus: Corpus, seed: int, root: Path, key: str, progress: Progress | None) -> None:
        self._corpus, self._seed, self._root = corpus, seed, root.absolute()
        self._written = {name: Folder(self._root, "written", [key, name]) for name in corpus.sources}
        self._hear = Hearing(progress)
        self._came: dict[str, Came] = {}

    def run(self, out: AbstractContextManager[Path]) -> dict[str, Counts]:
        """Do what is missing, and then enter `out` and fill the folder that it gives; returns its report."""
        texts = self._texts()
        if self._corpus.lines is not None:
            texts = self._lines(self._corpus.lines, texts)
        measures = self._measures(texts)
        table, clusters = self._decide(texts, measures)
        self._write(texts, measures, table, clusters)
        built = Built(self._came, texts, measures, self._written, table, clusters)
        with out as folder:
            report = assemble(folder, built)
        for done in self._written.values():
            shutil.rmtree(done.path, ignore_errors=True)
            with contextlib.suppress(OSError):  # another build writes there
                done.path.parent.rmdir()
        return report

    def _texts(self) -> dict[str, Folder]:
        """Read and edit every source."""
        folders, missing, keys = {}, {}, {}
        for name, source in self._corpus.sources.items():
            section = source.model_dump(mode="json", include={"read", "documents", "edit"})
            read = inputs(source.read, self._seed)
            folder = folders[name] = Folder(self._root, "texts", [FORMAT, name, section, read])
            if not folder.finished:
                names = [None] if source.documents else parts(source.read)
                told = [written(part or "") for part in names]
                keys[name] = _keys_of_files(name, section, read, told)
                folder.forget_others(told)
                folder.adopt(keys[name])
                facts = {"source": name, "section": section, "seed": self._seed}
                missing[name] = [
                    _task("texts", name, folder, number, {**facts, "part": part}) for number, part in enumerate(names)
                ]
        self._perform(missing, folders, keys)
        for name, folder in folders.items():
            self._came[name] = Came(folder.marks(), folder.path)
            self._check(name)
        return folders

    def _check(self, name: str) -> None:
        marks, folder = self._came[name].marks, self._came[name].folder
        for number, counted in enumerate(marks):
            if counted["bad_rows"]:
                first = read_rows(part_file(folder, number, ".bad.jsonl"))[0]
                source = self._corpus.sources[name]
                check_bad_share(name, source, self._seed, marks, self._corpus.bad_share, first)
                return

    def _lines(self, section: Lines, texts: Mapping[str, Folder]) -> dict[str, Folder]:
        """Remove repeated lines from the texts of the sources that are compared."""
        groups, told = lines.groups(section, texts, self._root), section.model_dump(mode="json")
        counted = {name: folder for group in groups for name, folder in group.counted.items()}
        unfinished = [name for name, folder in counted.items() if not folder.finished]
        facts: dict[str, Any] = {"section": told}
        tasks = {name: _per_part("line counts", name, texts[name], counted[name], facts) for name in unfinished}
        self._perform(tasks, counted)
        tasks, edited = {}, {}
        for group in groups:
            if not group.repeated.finished:
                group.merge(section)
            for name, folder in group.edited.items():
                edited[name] = folder
                if not folder.finished:
                    place = {"repeated": str(group.repeated.path / lines.REPEATED)}
                    facts = {"section": told, "first_part": group.first_part(name), **place}
                    tasks[name] = _per_part("lines", name, texts[name], folder, facts)
        self._perform(tasks, edited)
        for name, folder in edited.items():
            came = self._came[name]
            self._came[name] = Came(came.marks, came.folder, folder.marks(), folder.path)
        return {**texts, **edited}

    def _measures(self, texts: Mapping[str, Folder]) -> dict[str, Measures]:
        """Score, sign and compare with protected texts."""
        found, tasks, unfinished = {}, {}, []
        for name, source in self._corpus.sources.items():
            found[name] = Measures.of(self._corpus, source, self._root, texts[name].key)
            missing, documents = found[name].missing(), _documents(texts[name])
            keys = texts[name].keys()
            for each in missing:
                each.folder.adopt(each.keys(keys))
            tasks[name] = measuring.tasks(name, texts[name].path, documents, missing)
            unfinished += [(each.folder, each.keys(keys)) for each in missing]
        self._perform(tasks, {})
        for folder, part_keys in unfinished:
            folder.finish(len(part_keys), part_keys)
        return found

    def _decide(self, texts: Mapping[str, Folder], measures: Mapping[str, Measures]) -> tuple[Table, list[Cluster]]:
        """What is dropped: by the filters of each source, by `dedup`, by `decontaminate`."""
        table = Table.of({name: _documents(folder) for name, folder in texts.items()})
        for name, source in self._corpus.sources.items():
            scored = zip(source.filter, measures[name].filters.items(), strict=True)
            filters = [(kind, section, each.folder.path) for section, (kind, each) in scored]
            filter_source(table, name, filters)
        clusters = []
        for number, section in enumerate(self._corpus.dedup):
            signatures = {name: each.duplicates[number].folder.path for name, each in measures.items()}
            with tempfile.TemporaryDirectory(dir=self._root, prefix=".joined.") as scratch:
                clusters += drop_duplicates(table, section, signatures, Path(scratch) / "signatures.npy")
        for name, each in measures.items():
            if each.protected:
                drop_contaminated(table, name, each.protected.folder.path)
        return table, clusters

    def _write(
        self, texts: Mapping[str, Folder], measures: Mapping[str, Measures], table: Table, clusters: Sequence[Cluster]
    ) -> None:
        """Write each part's share of the splits."""
        show: dict[tuple[str, int], list[int]] = {}
        for index in (index for each in clusters for index in (each.kept, *each.dropped)):
            source, part, row = table.where(index)
            show.setdefault((source, part), []).append(row)
        tasks: dict[str, list[Task]] = {}
        for name, folder in self._written.items():
            scores = {kind: str(each.folder.path) for kind, each in measures[name].scores.items()}
            facts = {"scores": scores, "steps": table.steps[name], "fraction": self._corpus.validation_fraction}
            tasks[name] = []
            for number, place in table.parts(name):
                with whole_file(part_file(folder.path, number, ".codes.npy")) as path, path.open("wb") as file:
                    np.save(file, table.codes[place], allow_pickle=False)
                shown = {"show": show.get((name, number), []), "texts": str(texts[name].path)}
                tasks[name].append(_task("write", name, folder, number, {**facts, **shown}))
        self._perform(tasks, {})

    def _perform(
        self,
        tasks: Mapping[str, Sequence[Task]],
        folders: Mapping[str, Folder],
        keys: Mapping[str, list[str | None]] | None = None,
    ) -> None:
        """Do the tasks of sources, and finish their folders, whose parts have these keys."""
        every = [task for each in tasks.values() for task in each]
        perform(every, self._corpus.executor, self._root / "logs", self._hear)
        for name, folder in folders.items():
            if name in tasks:
                folder.finish(len(tasks[name]), (keys or {}).get(name))


def _per_part(kind: str, name: str, texts: Folder, out: Folder, facts: Mapping[str, Any]) -> list[Task]:
    settings = {**facts, "texts": str(texts.path)}
    return [_task(kind, name, out, number, settings) for number in range(len(texts.marks()))]


def _task(kind: str, name: str, out: Folder, number: int, settings: Mapping[str, Any]) -> Task:
    done = str(mark(out.path, number))
    return Task(kind, name, {**settings, "folder": str(out.path), "number": number}, (done,))


def _keys_of_files(name: str, section: Any, read: Any, parts: Sequence[str]) -> list[str | None]:
    """What the texts of each part depend on: the stamps of its files, and how they are read and edited.

    A part is named by its first file, and goes up to the first one of the next part; None where that cannot be told.
    """
    how = {**section, "read": {**section["read"], "path": None}}
    files = list(read.get("files", ()))
    places = {str(stamp[0]): place for place, stamp in enumerate(files)}
    begins = [places.get(part, -1) for part in parts]
    if -1 in begins or begins != sorted(begins):
        return [None] * len(parts)
    return [fingerprint([FORMAT, name, how, files[begin:end]]) for begin, end in pairwise([*begins, len(files)])]


def _documents(texts: Folder) -> list[int]:
    return [counted["kept"]["documents"] for counted in texts.marks()]
