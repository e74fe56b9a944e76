"""Documents from Parquet files, a few hundred rows at a time; a damaged row group costs itself alone."""

from collections.abc import Iterator
from typing import Any

from smelt.corpus import remote, streams
from smelt.corpus.bad import Report, Unreadable, report
from smelt.corpus.document import Document
from smelt.corpus.rows import FACTS, check_field, document, short_enough, sound
from smelt.errors import InputError
from smelt.recipe.sections.readers import Parquet

_ROWS_AT_ONCE = 256
_MEND = "copy or download it again"


def read_parquet(reader: Parquet, source: str, part: str, bad: Report | None) -> Iterator[Document]:
    """Each row one document, named by the row's id, or else by file and row."""

    def made(place: str, row: dict[str, Any]) -> Document:
        found = document(_decoded(row, reader.field, place), reader.field, place, source, reader.id_field)
        return short_enough(found, place, reader.max_bytes)

    return sound(_rows(reader, part, bad), made, bad)


def _rows(reader: Parquet, part: str, bad: Report | None) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "reading parquet needs pyarrow, which is not installed; run: pip install 'smelt[data]'"
        ) from None
    place = remote.shown(part)
    with streams.opened(part) as file:
        try:
            table = _opened(pyarrow, file, place)
            check_field(reader.field, table.schema_arrow.names, place, table.metadata.num_rows)
        except Unreadable as error:
            report(error, bad)
            return
        before = 0
        for number in range(table.num_row_groups):
            count, done = table.metadata.row_group(number).num_rows, 0
            try:
                for row in _group(table, number, reader):
                    done += 1
                    yield f"{place}:{before + done}", row
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                lost = Unreadable(
                    f"{place}: row group {number}",
                    "not a readable part of a Parquet file",
                    _MEND,
                    detail=str(error),
                    rows=count - done,
                )
                report(lost, bad)
            before += count


def _opened(pyarrow: Any, file: Any, place: str) -> Any:
    if not file.read(1):
        raise streams.empty(place)
    file.seek(0)
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Unreadable(place, "not a readable Parquet file", _MEND, detail=str(error)) from None


def _group(table: Any, number: int, reader: Parquet) -> Iterator[dict[str, Any]]:
    names = table.schema_arrow.names
    columns = [name for name in dict.fromkeys((reader.id_field, reader.field, *FACTS)) if name in names]
    for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[number], columns=columns):
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError:
            yield from _bytes(batch)


def _bytes(batch: Any) -> Iterator[dict[str, Any]]:
    """Rows of a batch in which some text is no UTF-8, so that only those rows are lost."""
    import pyarrow

    plain = {pyarrow.string(): pyarrow.binary(), pyarrow.large_string(): pyarrow.large_binary()}
    columns = [column.cast(plain.get(column.type, column.type)) for column in batch.columns]
    yield from pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()


def _decoded(row: dict[str, Any], field: str, place: str) -> dict[str, Any]:
    """The row with text for bytes: some writers leave out that a column is text."""
    try:
        return {key: value.decode() if isinstance(value, bytes) else value for key, value in row.items()}
    except UnicodeDecodeError as error:
        raise streams.not_utf8(place, error) from None
