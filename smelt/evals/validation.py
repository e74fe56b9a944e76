"""Bits per byte of validation documents: comparable between models whatever their tokenizers.

A document's first token costs log2 of the tokenizer's length, as nothing predicts it; every other one, its end of text
included, is predicted once, from the tokens before it in its chunk. Documents are whole and always the same ones.
"""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smelt.dataset.build import DOCUMENTS
from smelt.dataset.shards import Shards
from smelt.errors import InputError
from smelt.evals.bigram import Bigram, fit
from smelt.evals.likelihood import length_batches, next_token_losses
from smelt.model.decoder import Decoder
from smelt.model.evaluating import evaluating
from smelt.tokenizer.tokenizer import Tokenizer

_BIGRAM_TOKENS = 50_000_000


def bits_per_byte(
    model: Decoder, tokenizer: Tokenizer, shards: Shards, sequence: int, max_bytes: int
) -> dict[str, Any]:
    """Score the first whole documents of a validation split, at most `max_bytes` of text (and at least one document).

    Returns {"bits_per_byte", "loss" (mean nats of a predicted token), "bytes", "documents"}. A long document is cut
    into chunks of `sequence` tokens that overlap by one token.
    """
    documents, size = whole_documents(shards, max_bytes)
    rows = [(chunk, 1) for document in documents for chunk in chunks(document.tolist(), sequence)]
    nats, predicted = 0.0, sum(len(document) - 1 for document in documents)
    with evaluating(model):
        for batch in length_batches([len(ids) for ids, _ in rows]):
            losses = next_token_losses(model, tokenizer.pad, [rows[index] for index in batch])
            nats += sum(float(each.double().sum()) for each in losses)
    bits = nats / math.log(2) + len(documents) * math.log2(len(tokenizer))
    return {
        "bits_per_byte": bits / size,
        "loss": nats / max(1, predicted),
        "bytes": size,
        "documents": len(documents),
    }


def train_bigram(shards: Shards, tokenizer: Tokenizer) -> Bigram:
    """The bigram of the first millions of tokens of a source's training split."""
    return fit(shards.read(0, min(shards.tokens, _BIGRAM_TOKENS)), tokenizer.eos, len(tokenizer))


def bigram_bits_per_byte(bigram: Bigram, shards: Shards, max_bytes: int) -> float:
    """The bigram on exactly the documents that `bits_per_byte` scores."""
    documents, size = whole_documents(shards, max_bytes)
    return bigram.bits(documents) / size


def whole_documents(shards: Shards, max_bytes: int) -> tuple[list[NDArray[np.int64]], int]:
    """Ids of the first documents of a validation split whose texts fit `max_bytes` (at least one), and their bytes."""
    file = shards.folder / DOCUMENTS
    if not file.is_file():
        raise InputError(f"{file}: missing, so the bytes of the validation text are unknown; build the shards again")
    documents: list[NDArray[np.int64]] = []
    size = 0
    with file.open(encoding="utf-8") as rows:
        for index, row in enumerate(rows):
            text_bytes = json.loads(row)["bytes"]
            if documents and size + text_bytes > max_bytes:
                break
            start, end = shards.document_bounds(index)
            documents.append(shards.read(start, end - start).astype(np.int64))
            size += text_bytes
    return documents, size


def chunks(ids: list[int], sequence: int) -> list[list[int]]:
    """Pieces of `sequence` ids, each beginning with the last id of the one before, that predict every id but the first.

    >>> chunks([1, 2, 3, 4, 5], 3)
    [[1, 2, 3], [3, 4, 5]]
    """
    step = max(1, sequence - 1)
    return [ids[start : start + step + 1] for start in range(0, max(1, len(ids) - 1), step)]
