"""The stage that measures texts in one pass: scores of filters, hits of protected texts, signatures of duplicates.

What it writes depends on no threshold, so that thresholds are tuned without measuring again.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from smelt.corpus.decontaminate import Protected
from smelt.corpus.document import Document
from smelt.corpus.duplicates import signatures
from smelt.corpus.filters.table import FILTERS
from smelt.corpus.stages.batches import batches
from smelt.corpus.stages.folder import mark, new_table, part_file, whole_file, write_mark
from smelt.corpus.stages.texts import Heard
from smelt.errors import InputError
from smelt.recipe.sections.corpus import AnyFilter
from smelt.recipe.sections.duplicates import AnyDuplicates
from smelt.recipe.sections.protected import Decontaminate

Columns = dict[str, NDArray[Any]]
_ROWS_AT_ONCE = 50_000


class Sink(Protocol):
    """Takes the documents of a part, batch by batch."""

    def take(self, documents: Sequence[Document]) -> None: ...


def measure_task(settings: dict[str, Any], heard: Heard) -> None:
    """Measure part `number` of `texts` for each of `measures` whose folder has no mark for it yet."""
    texts, number = Path(settings["texts"]), settings["number"]
    missing = [each for each in settings["measures"] if not mark(Path(each["folder"]), number).is_file()]
    done = 0
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(_SINKS[each["kind"]](each, number, settings["documents"])) for each in missing]
        for batch in batches(texts, number):
            for sink in sinks:
                sink.take(batch)
            done += len(batch)
            heard(done)
    for each in missing:
        write_mark(Path(each["folder"]), number, {"documents": done})


def read_scores(folder: Path, number: int, columns: list[str] | None = None) -> Columns:
    """The columns of a part (all, if not named), each [documents]: numbers, or Python strings."""
    table = _parquet().read_table(part_file(folder, number, ".parquet"), columns=columns)
    return {name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)}


@contextlib.contextmanager
def _filter_sink(measure: dict[str, Any], number: int, documents: int) -> Iterator[Sink]:
    with _scores_sink(_scorer(measure["section"], measure["made_from"]).score, measure, number) as sink:
        yield sink


@contextlib.contextmanager
def _protected_sink(measure: dict[str, Any], number: int, documents: int) -> Iterator[Sink]:
    with _scores_sink(_protected(measure["section"], measure["made_from"]).score, measure, number) as sink:
        yield sink


@contextlib.contextmanager
def _scores_sink(
    score: Callable[[Sequence[Document]], Columns], measure: dict[str, Any], number: int
) -> Iterator["_Scores"]:
    with whole_file(part_file(Path(measure["folder"]), number, ".parquet")) as path:
        sink = _Scores(path, score)
        yield sink
        sink.close()


class _Scores:
    """Writes what a scorer says of each document, in order."""

    def __init__(self, path: Path, score: Callable[[Sequence[Document]], Columns]) -> None:
        self._path, self._score = path, score
        self._writer: Any = None
        self._held: list[Columns] = []

    def take(self, documents: Sequence[Document]) -> None:
        self._held.append(self._score(documents))
        if sum(len(next(iter(each.values()))) for each in self._held) >= _ROWS_AT_ONCE:
            self._write()

    def close(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        import pyarrow

        names = list(self._held[0]) if self._held else []
        if self._writer and not names:
            return
        joined = {name: np.concatenate([each[name] for each in self._held]) for name in names}
        table = pyarrow.table({name: _arrow(column) for name, column in joined.items()})
        self._writer = self._writer or _parquet().ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._held = []


@contextlib.contextmanager
def _signatures_sink(measure: dict[str, Any], number: int, documents: int) -> Iterator["_Signatures"]:
    with whole_file(part_file(Path(measure["folder"]), number, ".npy")) as path:
        sink = _Signatures(path, _duplicates(measure["section"]), documents)
        yield sink
        sink.close()


class _Signatures:
    """Writes uint64 [documents, columns]."""

    def __init__(self, path: Path, section: Any, documents: int) -> None:
        self._path, self._section, self._documents = path, section, documents
        self._table: Any = None
        self._row = 0

    def take(self, documents: Sequence[Document]) -> None:
        made = signatures(self._section, [document.text for document in documents])
        if self._table is None:
            self._table = new_table(self._path, (self._documents, made.shape[1]))
        self._table[self._row : self._row + len(made)] = made
        self._row += len(made)

    def close(self) -> None:
        if self._table is None:
            with self._path.open("wb") as file:
                np.save(file, np.zeros((0, 0), np.uint64), allow_pickle=False)
        else:
            self._table.flush()


_SINKS: dict[str, Callable[[dict[str, Any], int, int], contextlib.AbstractContextManager[Sink]]] = {
    "filter": _filter_sink,
    "protected": _protected_sink,
    "duplicates": _signatures_sink,
}


def _arrow(column: NDArray[Any]) -> Any:
    return column if column.dtype.kind in "biuf" else [str(value) for value in column]


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError("scores are kept as parquet, which needs pyarrow; run: pip install 'smelt[data]'") from None
    return pyarrow.parquet


@lru_cache
def _scorer(section: str, made_from: str) -> Any:
    """The scorer of a filter; `made_from` tells the model that its section names from one that was there before."""
    parsed: Any = TypeAdapter(AnyFilter).validate_json(section)
    return FILTERS[parsed.kind](parsed)


@lru_cache
def _protected(section: str, made_from: str) -> Protected:
    """The protected texts; `made_from` tells their files from what was there before."""
    return Protected(Decontaminate.model_validate_json(section))


@lru_cache
def _duplicates(section: str) -> Any:
    return TypeAdapter(AnyDuplicates).validate_json(section)
