"""Bits per byte of validation documents are whole, fixed and exact."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.build import build_corpus
from smelt.dataset.build import build_shards
from smelt.dataset.shards import Shards
from smelt.errors import InputError
from smelt.evals.validation import bigram_bits_per_byte, bits_per_byte, chunks, train_bigram, whole_documents
from smelt.model.decoder import Decoder
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def built(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    source = {"read": {"kind": "arithmetic", "documents": 300}}
    recipe = Recipe.model_validate(
        {"name": "test", "corpus": {"sources": {"math": source}, "validation_fraction": 0.1}}
    )
    build_corpus(recipe, folder / "corpus")
    build_shards(recipe, folder / "corpus", tokenizer, folder / "shards")
    return folder / "shards" / "math"


def test_bits_are_those_of_one_chunk_at_a_time(
    built: Path, decoder: Decoder, tokenizer: Tokenizer, plain_log_probability: Callable[[list[int], int], float]
) -> None:
    shards = Shards(built / "validation")
    documents, size = whole_documents(shards, 5000)
    nats = sum(
        -plain_log_probability(document[start : start + 24].tolist(), 1)
        for document in documents
        for start in range(0, len(document) - 1, 23)
    )
    bits = nats / math.log(2) + len(documents) * math.log2(len(tokenizer))
    result = bits_per_byte(decoder, tokenizer, shards, 24, 5000)
    assert result["bits_per_byte"] == pytest.approx(bits / size, rel=1e-4)
    assert result["loss"] == pytest.approx(nats / sum(len(document) - 1 for document in documents), rel=1e-4)
    assert (result["bytes"], result["documents"]) == (size, len(documents))


def test_a_uniform_model_pays_log2_of_the_vocabulary_for_every_token(
    built: Path, uniform_decoder: Decoder, tokenizer: Tokenizer
) -> None:
    shards = Shards(built / "validation")
    documents, size = whole_documents(shards, 10**9)
    tokens = sum(map(len, documents))
    first, rest = len(documents) * math.log2(len(tokenizer)), (tokens - len(documents)) * math.log2(tokenizer.padded)
    result = bits_per_byte(uniform_decoder, tokenizer, shards, 64, 10**9)
    assert result["bits_per_byte"] == pytest.approx((first + rest) / size, rel=1e-5)


def test_documents_are_whole_and_their_bytes_are_those_of_the_text(built: Path, tokenizer: Tokenizer) -> None:
    shards = Shards(built / "validation")
    documents, size = whole_documents(shards, 4000)
    texts = [tokenizer.decode(document) for document in documents]
    assert sum(len(text.encode()) for text in texts) == size <= 4000
    assert all(document[-1] == tokenizer.eos for document in documents)
    assert len(whole_documents(shards, 1)[0]) == 1


def test_the_bigram_scores_the_same_documents(built: Path, tokenizer: Tokenizer) -> None:
    shards = Shards(built / "validation")
    bigram = train_bigram(Shards(built / "train"), tokenizer)
    documents, size = whole_documents(shards, 3000)
    score = bigram_bits_per_byte(bigram, shards, 3000)
    assert score == pytest.approx(bigram.bits(documents) / size)
    assert 0.3 < score < 3


def test_shards_without_byte_counts_are_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"documents\.jsonl: missing"):
        whole_documents(Shards(built / "train"), 1000)


@given(st.integers(1, 200), st.integers(2, 40))
def test_chunks_predict_every_token_but_the_first_once(length: int, sequence: int) -> None:
    pieces = chunks(list(range(length)), sequence)
    assert [token for piece in pieces for token in piece[1:]] == list(range(1, length))
    assert all(len(piece) <= sequence for piece in pieces)
    assert all(left[-1] == right[0] for left, right in pairwise(pieces))


def test_rows_of_documents_match_the_shards(built: Path) -> None:
    shards = Shards(built / "validation")
    rows = [json.loads(line) for line in (shards.folder / "documents.jsonl").read_text().splitlines()]
    lengths = np.concatenate(list(shards.lengths()))
    assert [row["tokens"] for row in rows] == lengths.tolist()
