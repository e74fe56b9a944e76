"""A built corpus and a tokenizer -> one folder of token shards a source and split."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.build import documents
from smelt.corpus.document import Document, batched
from smelt.dataset.permutation import key_of, permute
from smelt.dataset.writer import token_bytes, write_shards
from smelt.files import whole_directory
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.corpus import Corpus
from smelt.tokenizer.encode import Encoded, Encoder
from smelt.tokenizer.tokenizer import Tokenizer

FORMAT = 1
SPLITS = ("train", "validation")
DOCUMENTS = "documents.jsonl"
Progress = Callable[[str, int], None]


def shards_inputs(recipe: Recipe, corpus_key: str, tokenizer_hash: str) -> dict[str, Any]:
    """Everything the shards depend on, JSON-serialisable; two equal results mean the same tokens."""
    corpus: Corpus = recipe.section("corpus")
    return {"format": FORMAT, "sources": list(corpus.sources), "corpus": corpus_key, "tokenizer": tokenizer_hash}


def build_shards(
    recipe: Recipe, corpus: Path, tokenizer: Tokenizer, out: Path, progress: Progress | None = None
) -> dict[str, dict[str, dict[str, int]]]:
    """Write `SOURCE/train` and `SOURCE/validation` under `out`; returns {source: {split: {documents, tokens, bytes}}}.

    Training documents are shuffled within chunks of 1,024 documents or four million characters, always in the same
    way. Validation documents keep the corpus's order, and `documents.jsonl` beside them has a row {"id", "bytes",
    "tokens"} for each. `progress(source, documents so far)` is called after every chunk.
    """
    section: Corpus = recipe.section("corpus")
    manifest: dict[str, Any] = {
        "kind": "shards",
        "tokenizer": tokenizer.hash,
        "tokenizer_length": len(tokenizer),
        "token_bytes": token_bytes(len(tokenizer)),
        "inputs": shards_inputs(recipe, corpus.name, tokenizer.hash),
        "sources": {},
    }
    encode = Encoder(tokenizer)
    with whole_directory(out, manifest) as folder:
        for source in section.sources:
            encode.restart()
            writer = _Writer(corpus, source, tokenizer, encode, progress)
            manifest["sources"][source] = {split: writer.write(folder / source / split, split) for split in SPLITS}
    sources: dict[str, dict[str, dict[str, int]]] = manifest["sources"]
    return sources


class _Writer:
    """Tokenises and writes the splits of one source, counting as it goes."""

    def __init__(
        self, corpus: Path, source: str, tokenizer: Tokenizer, encode: Encoder, progress: Progress | None
    ) -> None:
        self._corpus, self._source, self._progress = corpus, source, progress
        self._tokenizer, self._encode = tokenizer, encode
        self._documents = 0
        self._bytes = 0

    def write(self, folder: Path, split: str) -> dict[str, int]:
        """Write one split; returns its {"documents", "tokens", "bytes"}."""
        folder.mkdir(parents=True)
        self._bytes = 0
        tokenizer = self._tokenizer
        ids = self._train() if split == "train" else self._validation(folder / DOCUMENTS)
        counts = write_shards(folder, ids, eos=tokenizer.eos, length=len(tokenizer), tokenizer=tokenizer.hash)
        return {**counts, "bytes": self._bytes}

    def _train(self) -> Iterator[NDArray[np.uint32]]:
        for number, (_, encoded) in enumerate(self._chunks("train")):
            ids = list(encoded)
            size = np.full(len(ids), len(ids))
            key = np.full(len(ids), key_of("documents", self._source, number), dtype=np.uint64)
            yield from (ids[place] for place in permute(np.arange(len(ids)), size, key))

    def _validation(self, rows: Path) -> Iterator[NDArray[np.uint32]]:
        with rows.open("w", encoding="utf-8") as file:
            for chunk, encoded in self._chunks("validation"):
                for document, ids in zip(chunk, encoded, strict=True):
                    row = {"id": document.id, "bytes": len(document.text.encode()), "tokens": len(ids) + 1}
                    print(json.dumps(row, ensure_ascii=False), file=file)
                    yield ids

    def _chunks(self, split: str) -> Iterator[tuple[list[Document], Encoded]]:
        for chunk in batched(documents(self._corpus, self._source, split)):
            self._bytes += sum(len(document.text.encode()) for document in chunk)
            self._documents += len(chunk)
            yield chunk, self._encode([document.text for document in chunk])
            if self._progress:
                self._progress(self._source, self._documents)
