"""Folders of token shards, ours or datatrove's, opened as one memory-mapped stream of tokens a source."""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smelt.dataset.format import Shard, open_folder
from smelt.dataset.packing import Table, open_table, pack, packed_sources, table_inputs, write_table
from smelt.dataset.permutation import Integers
from smelt.errors import InputError
from smelt.files import check_directory, fingerprint
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer

_OPEN_FILES = 128  # shards of a source that are mapped at a time: a mapping holds a file handle
_SAMPLE = 4096  # bytes
_FIRST_TOKENS = 2**16


class Shards:
    """All shards of a folder, in the order of their names, as one stream of `tokens` tokens in `documents` documents.

    Opening checks every file's size against its index and metadata. `hashes` are known SHA-256 sums by file name, for
    `identity`; in the folder `packing`, where one is set, packed windows are kept. Raises InputError for a folder that
    is missing, empty or damaged.
    """

    packing: Path | None = None

    def __init__(self, folder: Path, hashes: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.files = open_folder(folder)
        self._hashes = hashes or {}
        self._starts = [shard.start for shard in self.files]
        self._first_documents = [shard.first_document for shard in self.files]
        self.tokens = sum(shard.tokens for shard in self.files)
        self.documents = sum(shard.documents for shard in self.files)
        self.token_bytes = self.files[0].token_bytes
        self._map = lru_cache(_OPEN_FILES)(self._map_shard)
        self._tables: dict[tuple[int, int], Table] = {}

    @cached_property
    def identity(self) -> str:
        """Identifies the stream: from known hashes, or else from sizes and samples of every file."""
        paths = [path for shard in self.files for path in (shard.path, shard.index)]
        return fingerprint([self._hashes.get(path.name) or _sampled(path) for path in paths])

    def read(self, start: int, count: int) -> NDArray[np.unsignedinteger]:
        """A copy of `count` tokens from position `start`, as uint16 or uint32."""
        out = np.empty(count, dtype=f"u{self.token_bytes}")
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: NDArray[np.integer]) -> None:
        """Fill `out` [count] with the tokens from position `start`, across shards."""
        done = 0
        for number in range(bisect_right(self._starts, start) - 1, len(self.files)):
            tokens = self._map(number)[0]
            first = start + done - self._starts[number]
            part = tokens[first : first + len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)
            if done == len(out):
                return
        raise IndexError(f"tokens {start} to {start + len(out)} of {self.tokens} in {self.folder}")

    def window(self, start: int, count: int) -> tuple[NDArray[np.unsignedinteger], Integers | NDArray[np.uint64]]:
        """`count` tokens from `start` with the one behind them (behind the last, the first), [count + 1], perhaps a
        view of the file; and in which columns, from 1 to `count`, a document has just ended."""
        number = bisect_right(self._starts, start) - 1
        tokens, ends = self._map(number)
        local = start - self._starts[number]
        part = tokens[local : local + count + 1]
        if len(part) > count:
            low, high = ends.searchsorted(np.array((local, local + count), dtype=np.uint64), "right").tolist()
            return part, ends[low:high] - np.uint64(local)
        part = np.append(self.read(start, count), self.token((start + count) % self.tokens))
        return part, self._ends_across(start, count)

    def token(self, position: int) -> int:
        """The token at one position."""
        number = bisect_right(self._starts, position) - 1
        return int(self._map(number)[0][position - self._starts[number]])

    def document_at(self, position: int) -> tuple[int, Shard]:
        """The number of the document that holds a token, and its shard."""
        number = bisect_right(self._starts, position) - 1
        shard = self.files[number]
        place = np.searchsorted(self._map(number)[1], np.uint64(position - shard.start), side="right")
        return shard.first_document + int(place), shard

    def document_bounds(self, document: int) -> tuple[int, int]:
        """Positions of a document's first token and of the one behind its last."""
        number = bisect_right(self._first_documents, document) - 1
        shard = self.files[number]
        ends, place = self._map(number)[1], document - shard.first_document
        return shard.start + (int(ends[place - 1]) if place else 0), shard.start + int(ends[place])

    def lengths(self) -> Iterator[Integers]:
        """Tokens of each document, shard by shard."""
        for number in range(len(self.files)):
            ends = self._map(number)[1].astype(np.int64)
            yield ends - np.concatenate([[0], ends[:-1]])

    def packed(self, span: int, sequence: int) -> Table:
        """The documents packed into windows of `sequence` tokens, from disk where they have been packed before."""
        key = span, sequence
        if key not in self._tables:
            path = self.table_path(span, sequence)
            if path is None:
                self._tables[key] = pack(self.lengths(), self.tokens, span, sequence)
            else:
                if not path.exists():
                    self.write_packed(span, sequence, path)
                self._tables[key] = open_table(path)
        return self._tables[key]

    def table_path(self, span: int, sequence: int) -> Path | None:
        """Where the packed windows are kept; None where only in memory."""
        return self.packing and self.packing / fingerprint(table_inputs(self.identity, span, sequence))

    def write_packed(self, span: int, sequence: int, out: Path) -> None:
        """Pack, into a folder of its own."""
        write_table(self.lengths(), self.tokens, span, sequence, out)

    def _ends_across(self, start: int, count: int) -> Integers:
        """In which columns, from 1 to `count`, a document has just ended, in a window at the end of a shard."""
        columns = []
        for number in range(bisect_right(self._starts, start) - 1, bisect_left(self._starts, start + count)):
            ends, before = self._map(number)[1], start - self._starts[number]
            bounds = np.array((max(0, before), before + count), dtype=np.uint64)
            low, high = ends.searchsorted(bounds, "right").tolist()
            columns.append(ends[low:high].astype(np.int64) - before)
        return np.concatenate(columns)

    def _map_shard(self, number: int) -> tuple[NDArray[np.unsignedinteger], NDArray[np.uint64]]:
        """(tokens, document ends) of a shard, memory-mapped."""
        shard = self.files[number]
        tokens = np.memmap(shard.path, dtype=f"<u{shard.token_bytes}", mode="r")
        return np.asarray(tokens), np.asarray(np.memmap(shard.index, dtype="<u8", mode="r"))


def _sampled(path: Path) -> str:
    """Hash of a file's size and of three short pieces of it."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for place in (0, max(0, size // 2), max(0, size - _SAMPLE)):
            file.seek(place)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def open_sources(recipe: Recipe, shards: Path | None, tokenizer: Tokenizer) -> dict[str, Shards]:
    """Every source of the recipe by name, in its order: those of the corpus from the artifact `shards`, and the
    folders that `dataset.shards` names.

    Raises InputError for shards that are damaged, or that another tokenizer made.
    """
    opened = open_split(shards, "train", tokenizer) if shards is not None else {}
    found = {name: opened[name] for name in (recipe.corpus.sources if recipe.corpus else ()) if name in opened}
    for name, folder in recipe.dataset.shards.items():
        found[name] = Shards(Path(folder))
        _check_tokenizer(f"dataset.shards.{name}", found[name], tokenizer)
    return found


def make_tables(recipe: Recipe, sources: Mapping[str, Shards]) -> dict[str, str]:
    """Pack whatever the recipe's plan draws packed and is not packed yet.

    Returns what identifies each stream of tokens: `NAME` -> the source's identity, and `NAME packed to SEQUENCE` -> the
    fingerprint of its table.
    """
    streams = {name: shards.identity for name, shards in sources.items()}
    for name, sequence in packed_sources(recipe):
        span = recipe.dataset.span
        sources[name].packed(span, sequence)
        streams[f"{name} packed to {sequence}"] = fingerprint(table_inputs(sources[name].identity, span, sequence))
    return streams


def open_split(shards: Path, split: str, tokenizer: Tokenizer) -> dict[str, Shards]:
    """One split ("train" or "validation") of every source in a shards artifact; InputError as `open_sources`."""
    manifest = check_directory(shards, contents=False)
    if manifest["tokenizer"] != tokenizer.hash:
        raise InputError(_another(str(shards), manifest["tokenizer"], manifest["tokenizer_length"], tokenizer))
    opened = {}
    for name in manifest["sources"]:
        folder = Path(name, split)
        hashes = {
            Path(file).name: entry["sha256"] for file, entry in manifest["files"].items() if Path(file).parent == folder
        }
        opened[name] = Shards(shards / folder, hashes)
        _check_tokenizer(str(shards / folder), opened[name], tokenizer)
    return opened


def _check_tokenizer(name: str, shards: Shards, tokenizer: Tokenizer) -> None:
    """What can be told of shards without a manifest: a hash in the metadata, the token width, the first ids."""
    maker = shards.files[0].tokenizer
    first = shards.read(0, min(shards.tokens, _FIRST_TOKENS))
    if len(maker) == len(tokenizer.hash) and set(maker) <= set("0123456789abcdef") and maker != tokenizer.hash:
        raise InputError(_another(f"{name}: {shards.folder}", maker, None, tokenizer))
    if len(tokenizer) > 2 ** (8 * shards.token_bytes):
        raise InputError(
            f"{name}: {shards.folder} has {shards.token_bytes} bytes a token, too few for the tokenizer's "
            f"{len(tokenizer):,} ids; build the shards with this tokenizer, or load the one they were built with"
        )
    if first.max() >= len(tokenizer):
        raise InputError(
            f"{name}: {shards.files[0].path} holds the token id {first.max()}, but the tokenizer has only "
            f"{len(tokenizer):,} ids; load the tokenizer that the shards were built with, or build them again"
        )


def _another(name: str, maker: str, length: int | None, tokenizer: Tokenizer) -> str:
    ids = f" ({length:,} ids)" if length is not None else ""
    return (
        f"{name} was built with the tokenizer {maker[:16]}{ids}, not with this one, {tokenizer.hash[:16]} "
        f"({len(tokenizer):,} ids); load that tokenizer, or build the shards again"
    )
