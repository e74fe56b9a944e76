"""Documents of token ids -> a folder of shards in datatrove's format, streamed with bounded memory.

A shard is three files: `NAME.ds` (little-endian tokens), `NAME.ds.index` (uint64 document ends, in tokens from the
shard's start) and `NAME.ds.metadata` (tokenizer and bytes a token; token count; the count for people).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smelt.files import write_text

SHARD_TOKENS = 2**30


def token_bytes(length: int) -> int:
    """Bytes a token for a tokenizer of `length` ids."""
    return 2 if length <= 2**16 else 4


def write_shards(
    folder: Path,
    documents: Iterable[Sequence[int] | NDArray[np.uint32]],
    *,
    eos: int,
    length: int,
    tokenizer: str,
    shard_tokens: int = SHARD_TOKENS,
) -> dict[str, int]:
    """Write documents, each closed with `eos`, and return {"documents", "tokens"}.

    `length` is the tokenizer's number of ids, `tokenizer` its hash, for the metadata. A shard ends with the document
    that brings it to `shard_tokens`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    width = token_bytes(length)
    left = iter(documents)
    counts = {"documents": 0, "tokens": 0}
    for number, first in enumerate(left):
        path = folder / f"{number:05d}.ds"
        ends = _write_shard(path, chain([first], left), eos, width, shard_tokens)
        write_text(path.with_name(path.name + ".metadata"), f"{tokenizer}|{width}\n{ends[1]}\n{ends[1]:,} tokens")
        counts = {"documents": counts["documents"] + ends[0], "tokens": counts["tokens"] + ends[1]}
    return counts


def _write_shard(
    path: Path, documents: Iterator[Sequence[int] | NDArray[np.uint32]], eos: int, width: int, limit: int
) -> tuple[int, int]:
    """One shard of at least `limit` tokens, or all that is left; returns its (documents, tokens)."""
    count = end = 0
    with path.open("wb") as tokens, path.with_name(path.name + ".index").open("wb") as index:
        for document in documents:
            ids = np.empty(len(document) + 1, dtype=f"<u{width}")
            ids[:-1], ids[-1] = document, eos
            tokens.write(ids.tobytes())
            count, end = count + 1, end + len(document) + 1
            index.write(end.to_bytes(8, "little"))
            if end >= limit:
                break
    return count, end
