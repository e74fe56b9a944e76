"""What a folder of token shards holds, checked file by file: sizes, document ends and token width must agree.

The format is datatrove's: `NAME.ds` (little-endian tokens), `NAME.ds.index` (uint64 document ends, in tokens from the
shard's start) and, if present, `NAME.ds.metadata` (first line: tokenizer and bytes a token, with a bar between).
"""

from dataclasses import dataclass
from pathlib import Path

from smelt.errors import InputError


@dataclass(frozen=True)
class Shard:
    """One checked `.ds` file: where its tokens and documents begin in the source, and how many it has."""

    path: Path
    start: int
    tokens: int
    first_document: int
    documents: int
    token_bytes: int
    tokenizer: str

    @property
    def index(self) -> Path:
        """The file of document ends."""
        return self.path.with_name(self.path.name + ".index")


def open_folder(folder: Path) -> tuple[Shard, ...]:
    """The shards of a folder that hold anything, in the order of their names; InputError for a damaged one."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of token shards; check the path, or build it")
    paths = sorted(folder.glob("*.ds"))
    if not paths:
        raise InputError(f"{folder}: holds no .ds files; name the folder that directly holds the token shards")
    shards: list[Shard] = []
    start = document = 0
    for path in paths:
        shard = _check(path, start, document)
        if not shard.tokens:
            continue
        if shards and shard.token_bytes != shards[0].token_bytes:
            raise InputError(
                f"{path}: {shard.token_bytes} bytes a token where {shards[0].path.name} has {shards[0].token_bytes}; "
                "keep shards of different tokenizers in different folders"
            )
        shards.append(shard)
        start, document = start + shard.tokens, document + shard.documents
    if not shards:
        raise InputError(f"{folder}: its token shards are empty; build them again from documents with text")
    return tuple(shards)


def _check(path: Path, start: int, first_document: int) -> Shard:
    index = path.with_name(path.name + ".index")
    if not index.is_file():
        raise InputError(f"{index}: missing, so document ends are unknown; tokenize again with save_index=True")
    size, index_size = path.stat().st_size, index.stat().st_size
    if index_size % 8 or bool(size) != bool(index_size):
        raise InputError(f"{index}: {index_size} bytes for a shard of {size} (truncated?); build the shards again")
    with index.open("rb") as file:
        file.seek(max(0, index_size - 8))
        tokens = int.from_bytes(file.read(8), "little")
    tokenizer, width = _metadata(path)
    width = width or (size // tokens if tokens and size in (2 * tokens, 4 * tokens) else 2)
    if size % width:
        raise InputError(
            f"{path}: {size} bytes is no multiple of {width} bytes a token (truncated?); build the shards again"
        )
    if size != tokens * width:
        raise InputError(
            f"{path}: {size // width:,} tokens where its .index ends at {tokens:,} (truncated?); build the shards again"
        )
    return Shard(path, start, tokens, first_document, index_size // 8, width, tokenizer)


def _metadata(path: Path) -> tuple[str, int | None]:
    """(tokenizer, bytes a token) as `.metadata` has them; the second is None where it is silent."""
    metadata = path.with_name(path.name + ".metadata")
    if not metadata.is_file():
        return "", None
    name, _, width = metadata.read_text(encoding="utf-8", errors="replace").partition("\n")[0].rpartition("|")
    return (name, int(width)) if width in ("2", "4") else ("", None)
