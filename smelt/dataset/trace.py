"""Looking behind batches and into shards: the documents of a step, and what a folder of shards holds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smelt.dataset.batches import data_order
from smelt.dataset.shards import Shards
from smelt.dataset.statistics import SHORT, packing_facts
from smelt.errors import InputError
from smelt.files import MANIFEST, check_directory
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer

_FIRST_DOCUMENTS = 3
_FIRST_IDS = 64


def trace(recipe: Recipe, sources: Mapping[str, Shards], tokenizer: Tokenizer, step: int) -> list[dict[str, Any]]:
    """The documents behind 0-based `step`, one row a piece of a document in a window.

    `window` is the row of the batch, `columns` the piece's [first, past the last] in it; `shard` the file, `document`
    the number of the document in the source, `offset` the piece's first token in the document; `text` is the piece's.
    """
    order = data_order(recipe, sources)
    windows = order.windows(step)
    rows: list[dict[str, Any]] = []
    for window, (source, offset, epoch) in enumerate(
        zip(windows.sources.tolist(), windows.offsets.tolist(), windows.epochs.tolist(), strict=True)
    ):
        name = recipe.sources[source]
        stretches = [(offset, windows.sequence)]
        if windows.packed:
            starts, lengths = order.table(source, windows.sequence).pieces(offset)
            stretches = list(zip(starts.tolist(), lengths.tolist(), strict=True))
        column = 0
        for first, count in stretches:
            for piece in _pieces(sources[name], first, count, column, tokenizer):
                rows.append({"step": step, "window": window, "source": name, "epoch": epoch, **piece})
            column += count
    return rows


def inspect(folder: Path, tokenizer: Tokenizer | None = None, packing: tuple[int, int] | None = None) -> dict[str, Any]:
    """Counts, lengths and first documents of a shards artifact (every source and split) or one folder of shards.

    Reads every file: checksums of an artifact, the order of all document ends. With a `tokenizer`, first documents
    come as text, else as ids. With `packing`, a (span, sequence), each but the validation splits has
    `packing_facts` too. Raises InputError for
    what is damaged, and for a span that is no multiple of the sequence.
    """
    if packing is not None and packing[0] % packing[1]:
        raise InputError(f"--span {packing[0]}: must be a multiple of --sequence {packing[1]}; give another one")
    if (folder / MANIFEST).is_file():
        manifest = check_directory(folder)
        if manifest.get("kind") != "shards":
            raise InputError(f"{folder}: holds no token shards but '{manifest.get('kind')}'; name a shards folder")
        facts = {key: manifest[key] for key in ("tokenizer", "tokenizer_length", "token_bytes")}
        names = {
            name: [(split, folder / name / split) for split in splits] for name, splits in manifest["sources"].items()
        }
    else:
        facts, names = {}, {folder.name: [("all", folder)]}
    return {
        **facts,
        "sources": {
            name: {
                split: _describe(Shards(path), tokenizer, None if split == "validation" else packing)
                for split, path in splits
            }
            for name, splits in names.items()
        },
    }


def _pieces(shards: Shards, offset: int, count: int, column: int, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    position = offset
    while position < offset + count:
        document, shard = shards.document_at(position)
        start, end = shards.document_bounds(document)
        stop = min(end, offset + count)
        yield {
            "shard": str(shard.path),
            "document": document,
            "offset": position - start,
            "columns": [column + position - offset, column + stop - offset],
            "text": tokenizer.decode(shards.read(position, stop - position).tolist(), skip_special=False),
        }
        position = stop


def _describe(shards: Shards, tokenizer: Tokenizer | None, packing: tuple[int, int] | None) -> dict[str, Any]:
    short = longest = 0
    for lengths in shards.lengths():
        short, longest = short + int((lengths < SHORT).sum()), max(longest, int(lengths.max()))
        if lengths.min() < 0:
            raise InputError(f"{shards.folder}: an .index is not in order, so it is damaged; build the shards again")
    first = [shards.document_bounds(document) for document in range(min(_FIRST_DOCUMENTS, shards.documents))]
    ids = [shards.read(start, min(end - start, _FIRST_IDS)).tolist() for start, end in first]
    return {
        "shards": len(shards.files),
        "documents": shards.documents,
        "tokens": shards.tokens,
        "token_bytes": shards.token_bytes,
        f"share_under_{SHORT}_tokens": short / shards.documents,
        "mean_tokens": shards.tokens / shards.documents,
        "longest_tokens": longest,
        **({"packing": packing_facts(shards, *packing)} if packing else {}),
        "first": [tokenizer.decode(each, skip_special=False) for each in ids] if tokenizer else ids,
    }
