"""When a run reads a text: every place of it in the token streams, and the steps whose batches hold that place.

The text is looked for in the bytes that the tokens stand for, so it is found however it was tokenised there.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any

import numpy as np

from smelt.dataset.batches import data_order
from smelt.dataset.shards import Shards
from smelt.errors import InputError
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer

_CHUNK = 2**20  # tokens searched at a time
_SAMPLE = 2**14  # tokens of a source on which the bytes of tokens prove themselves
_AROUND = 20  # tokens of context each side
_NEVER = b"\xff"  # a byte that no UTF-8 text has: what special tokens stand for


def find(
    recipe: Recipe, sources: Mapping[str, Shards], tokenizer: Tokenizer, text: str, limit: int = 100
) -> list[dict[str, Any]]:
    """The first `limit` places of `text` in the sources of a recipe, and when its plan reads each.

    A row has `source`, `shard`, `document` (its number in the source), `offset` (of the first token in the document),
    `tokens` (how many the text takes up there), `same_tokens` (whether they are those that the text by itself has),
    `context` (the text and what is around it) and `seen`: `{"step" (0-based), "window" (row of the batch), "columns"
    ([first, past the last] in it), "epoch"}`, by step. A place that windows cut is seen in several, part by part.
    Raises InputError for an empty text.
    """
    if not text.strip():
        raise InputError("find: the text is empty; give some words of a document")
    own = tokenizer.encode(text)
    again = tokenizer.decode(own, skip_special=False)
    needle = text if again == text else again.strip()  # a tokenizer may keep texts in a normal form
    order, rows = data_order(recipe, sources), list[dict[str, Any]]()
    for name, shards in sources.items():
        for first, last in islice(occurrences(shards, tokenizer, needle), limit - len(rows)):
            document, shard = shards.document_at(first)
            begin, end = shards.document_bounds(document)
            around = slice(max(begin, first - _AROUND), min(end, last + _AROUND))
            context = shards.read(around.start, around.stop - around.start).tolist()
            rows.append(
                {
                    "source": name,
                    "shard": str(shard.path),
                    "document": document,
                    "offset": first - begin,
                    "tokens": last - first,
                    "same_tokens": shards.read(first, last - first).tolist() == own,
                    "context": tokenizer.decode(context),
                    "seen": [
                        {"step": seen.step, "window": seen.row, "columns": list(seen.columns), "epoch": seen.epoch}
                        for seen in order.seen(name, (first, last), begin)
                    ],
                }
            )
    return rows


def occurrences(shards: Shards, tokenizer: Tokenizer, text: str) -> Iterator[tuple[int, int]]:
    """[first, last) tokens of every place of `text`, in order and without overlap, never across documents' ends."""
    spelt = _Bytes.of(tokenizer)
    if spelt is not None and spelt.proven(shards, tokenizer):
        return spelt.occurrences(shards, text.encode())
    return _in_documents(shards, tokenizer, text)


class _Bytes:
    """The bytes that each id of a byte-level tokenizer stands for."""

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = tokens
        self._lengths = np.array([len(token) for token in tokens])

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "_Bytes | None":
        """None where tokens are not spelt in bytes."""
        alphabet = _alphabet()
        tokens = [_NEVER] * len(tokenizer)
        spelt = tokenizer.vocabulary(special=False)
        for spelling, token in tokenizer.vocabulary().items():
            if not tokenizer.decode([token]):
                continue  # special
            if spelling not in spelt:  # added beside the others, as it is
                tokens[token] = spelling.encode()
            elif set(spelling) <= alphabet.keys():
                tokens[token] = bytes(alphabet[character] for character in spelling)
            else:
                return None
        return cls(tokens)

    def proven(self, shards: Shards, tokenizer: Tokenizer) -> bool:
        """Whether the first tokens of a source have the bytes that the tokenizer decodes them to."""
        ids = shards.read(0, min(shards.tokens, _SAMPLE)).tolist()
        ends = [place + 1 for place, token in enumerate(ids) if self._tokens[token] == _NEVER]
        return all(
            self._spell(ids[first:last]).rstrip(_NEVER).decode(errors="replace") == tokenizer.decode(ids[first:last])
            for first, last in pairwise([0, *ends, len(ids)])
        )

    def occurrences(self, shards: Shards, text: bytes) -> Iterator[tuple[int, int]]:
        """[first, last) tokens of every place of `text`, in order."""
        behind = 0
        for start in range(0, shards.tokens, _CHUNK):
            count = min(_CHUNK + len(text), shards.tokens - start)  # a token is a byte at least
            ids = shards.read(start, count)
            searched, at = self._spell(ids.tolist()), -1
            if text not in searched:
                continue
            ends = np.cumsum(self._lengths[ids])
            while (at := searched.find(text, at + 1)) >= 0:
                first, last = np.searchsorted(ends, [at, at + len(text) - 1], side="right").tolist()
                if first >= _CHUNK:
                    break
                if start + first >= behind:
                    behind = start + last + 1
                    yield start + first, behind

    def _spell(self, ids: list[int]) -> bytes:
        return b"".join(map(self._tokens.__getitem__, ids))


def _in_documents(shards: Shards, tokenizer: Tokenizer, text: str) -> Iterator[tuple[int, int]]:
    """The same by decoding one document after the other."""
    for document in range(shards.documents):
        start, end = shards.document_bounds(document)
        ids = shards.read(start, end - start).tolist()
        whole, at = tokenizer.decode(ids), -1

        def reach(count: int, ids: list[int] = ids) -> int:
            return len(tokenizer.decode(ids[:count]))

        while (at := whole.find(text, at + 1)) >= 0:
            last = bisect_left(range(len(ids) + 1), at + len(text), key=reach)
            yield start + max(0, bisect_left(range(len(ids) + 1), at + 1, key=reach) - 1), start + last
            at += len(text) - 1


def _alphabet() -> dict[str, int]:
    """The characters in which byte-level tokenizers spell bytes: printable ones themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}
