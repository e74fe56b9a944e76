"""Documents from a dataset of the Hugging Face hub, or from a local folder laid out like one.

`datasets` finds the files of a subset and split; Parquet and JSON Lines are then read where they are, by our readers.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from smelt.corpus import parquet, rows
from smelt.corpus.bad import Report
from smelt.corpus.document import Document
from smelt.errors import InputError
from smelt.files import stamp
from smelt.recipe.sections.readers import Hub, JsonLines, Parquet

_PARQUET, _JSON = {".parquet"}, {".jsonl", ".ndjson"}
_PACKED = {".gz", ".zst"}


def parts(reader: Hub) -> list[str]:
    """The files of the split that can be read apart; [""] where `datasets` must read it as a whole."""
    return _files(reader) or [""]


def inputs(reader: Hub, seed: int) -> dict[str, Any]:
    """Stamps of the files of a local folder; a dataset of the hub is known by its section."""
    folder = Path(reader.id)
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    return {"files": [stamp(file) for file in files]}


def read_hub(reader: Hub, source: str, part: str, bad: Report | None) -> Iterator[Document]:
    """Each row one document, in the dataset's order, named by its id, or else by its place."""
    told = {"path": part, "field": reader.field, "id_field": reader.id_field, "max_bytes": reader.max_bytes}
    if part:
        if _suffix(part) in _PARQUET:
            return parquet.read_parquet(Parquet(kind="parquet", **told), source, part, bad)
        return rows.read_jsonl(JsonLines(kind="jsonl", **told), source, part, bad)

    def made(place: str, row: dict[str, Any]) -> Document:
        found = rows.document(row, reader.field, place, source, reader.id_field)
        return rows.short_enough(found, place, reader.max_bytes)

    dataset = _place(reader)
    return rows.sound(((f"{dataset}:{number}", row) for number, row in enumerate(_rows(reader))), made, bad)


def _files(reader: Hub) -> list[str]:
    """Where the files of the split are; none when they are of a format for `datasets`, or are to be downloaded."""
    if not reader.streaming:
        return []
    datasets = _library()
    with _Explained(reader, datasets):
        config = datasets.load_dataset_builder(reader.id, name=reader.subset, revision=reader.revision).config
    splits = config.data_files or {}
    if splits and reader.split not in splits:
        raise InputError(f"{_place(reader)}: has no such split (splits there: {', '.join(map(str, splits))})")
    files = [str(file) for file in splits.get(reader.split, ())]
    plain = not getattr(config, "field", None)  # rows inside one JSON object are for `datasets`
    return files if plain and all(_suffix(file) in _PARQUET | _JSON for file in files) else []


def _rows(reader: Hub) -> Iterator[dict[str, Any]]:
    datasets = _library()
    with _Explained(reader, datasets):
        yield from datasets.load_dataset(
            reader.id,
            name=reader.subset,
            split=reader.split,
            revision=reader.revision,
            streaming=reader.streaming,
        )


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError(
            "reading the hub needs datasets, which is not installed; run: pip install 'smelt[data]'"
        ) from None
    return datasets


class _Explained:
    """Turns what `datasets` raises into one line."""

    def __init__(self, reader: Hub, datasets: Any) -> None:
        self._place, self._errors = _place(reader), (datasets.exceptions.DatasetsError, OSError, ValueError)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (*self._errors, RuntimeError)):
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self._place}: cannot be read ({reason}); check id, subset, split, revision and the connection"
            ) from error


def _suffix(file: str) -> str:
    path = PurePosixPath(file)
    return (path.with_suffix("") if path.suffix in _PACKED else path).suffix


def _place(reader: Hub) -> str:
    return f"{reader.id}{f'/{reader.subset}' if reader.subset else ''}[{reader.split}]"
