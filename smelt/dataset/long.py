"""A source of long documents made from another one: its shards hold the documents of at least so many tokens, in order.

Mixtures that draw from it beside the source itself up-sample long documents.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.dataset.shards import Shards
from smelt.dataset.writer import token_bytes, write_shards
from smelt.errors import InputError
from smelt.files import MANIFEST, read_json, whole_directory
from smelt.recipe.sections.dataset import LongDocuments
from smelt.tokenizer.tokenizer import Tokenizer

FORMAT = 2
_NAME = "long"


def long_inputs(section: LongDocuments, source: Shards) -> dict[str, Any]:
    """Everything that the long documents depend on, JSON-serialisable."""
    return {"format": FORMAT, "source": source.identity, "tokens": section.tokens}


def build_long(name: str, section: LongDocuments, source: Shards, tokenizer: Tokenizer, out: Path) -> dict[str, int]:
    """Write a shards artifact with the long documents of `source`; returns {"documents", "tokens"}.

    Raises InputError, which names `dataset.long.NAME`, where no document is that long.
    """
    if not any((lengths >= section.tokens).any() for lengths in source.lengths()):
        raise InputError(
            f"dataset.long.{name}.tokens: no document of '{section.of}' has {section.tokens:,} tokens; lower it"
        )
    manifest: dict[str, Any] = {
        "kind": "shards",
        "tokenizer": tokenizer.hash,
        "tokenizer_length": len(tokenizer),
        "token_bytes": token_bytes(len(tokenizer)),
        "inputs": long_inputs(section, source),
    }
    with whole_directory(out, manifest) as folder:
        ids = _documents(source, section.tokens, tokenizer.eos)
        where = folder / _NAME / "train"
        counts = write_shards(where, ids, eos=tokenizer.eos, length=len(tokenizer), tokenizer=tokenizer.hash)
        manifest["sources"] = {_NAME: {"train": counts}}
    return counts


def open_long(folder: Path) -> Shards:
    """The shards in a folder that `build_long` wrote."""
    files: Mapping[str, Any] = read_json(folder / MANIFEST)["files"]
    return Shards(folder / _NAME / "train", {Path(file).name: entry["sha256"] for file, entry in files.items()})


def _documents(source: Shards, tokens: int, eos: int) -> Iterator[NDArray[np.uint32]]:
    """The ids of each long document without its end, which documents of shards made elsewhere may not have."""
    first = 0
    for lengths in source.lengths():
        for place in np.flatnonzero(lengths >= tokens).tolist():
            start, end = source.document_bounds(first + place)
            ids = source.read(start, end - start).astype(np.uint32)
            yield ids[:-1] if ids[-1] == eos else ids
        first += len(lengths)
