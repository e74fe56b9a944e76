"""Documents from a dataset of the Hugging Face hub, or from a local folder laid out like one."""

from collections.abc import Iterator
from typing import Any

from smelt.corpus.document import Document
from smelt.corpus.files import document
from smelt.errors import InputError
from smelt.recipe.sections.corpus import Hub


def read_hub(reader: Hub, source: str) -> Iterator[Document]:
    """Each row one document, in the dataset's order, named by its `id` or else by its number."""
    place = f"{reader.id}{f'/{reader.subset}' if reader.subset else ''}[{reader.split}]"
    for number, row in enumerate(_rows(reader, place)):
        yield document(row, reader.field, f"{place}:{number}", source)


def _rows(reader: Hub, place: str) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise InputError(
            "reading the hub needs datasets, which is not installed; run: pip install 'smelt[data]'"
        ) from None
    try:
        yield from datasets.load_dataset(
            reader.id,
            name=reader.subset,
            split=reader.split,
            revision=reader.revision,
            streaming=reader.streaming,
        )
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{place}: cannot be read ({reason}); check id, subset, split, revision and the connection"
        ) from error
