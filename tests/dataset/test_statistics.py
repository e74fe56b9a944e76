"""What packing costs: padding, cut documents and attention, counted window by window."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.shards import Shards
from smelt.dataset.statistics import packing_facts
from smelt.dataset.trace import inspect
from smelt.dataset.writer import write_shards
from smelt.errors import InputError


def expected(lengths: list[int], windows: list[list[tuple[int, int]]], sequence: int) -> dict[str, float]:
    """Facts of windows of (document, tokens) pieces."""
    of: dict[int, set[int]] = {}
    pairs = 0
    for number, pieces in enumerate(windows):
        padding = sequence - sum(count for _, count in pieces)
        pairs += sum(count * (count + 1) // 2 for count in (padding, *(count for _, count in pieces)))
        for document, _ in pieces:
            of.setdefault(document, set()).add(number)
    held = sum(count for pieces in windows for _, count in pieces)
    cut = [document for document, where in of.items() if len(where) > 1]
    whole = len(windows) * sequence
    return {
        "windows": len(windows),
        "padding": 1 - held / whole if windows else 0.0,
        "left_out": sum(lengths) - held,
        "cut": len(cut) / len(lengths),
        "cut_needlessly": sum(lengths[document] <= sequence for document in cut) / len(lengths),
        "attention_saved": 1 - pairs / (len(windows) * sequence * (sequence + 1) // 2) if windows else 0.0,
    }


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=50), shard_tokens=st.integers(1, 300))
def test_facts_are_what_counting_window_by_window_gives(
    tmp_path_factory: Any, lengths: list[int], shard_tokens: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    documents = [[1] * (length - 1) for length in lengths]
    write_shards(folder, documents, eos=0, length=100, tokenizer="t", shard_tokens=shard_tokens)
    shards = Shards(folder)
    facts = packing_facts(shards, 64, 16)
    of = np.repeat(np.arange(len(lengths)), lengths)
    cut = [of[start : start + 16].tolist() for start in range(0, len(of) // 16 * 16, 16)]
    assert facts["concatenate"] == pytest.approx(
        expected(lengths, [[(each, window.count(each)) for each in sorted(set(window))] for window in cut], 16)
    )
    table = shards.packed(64, 16)
    packed = [
        [
            (int(of[start]), count)
            for start, count in zip(*(part.tolist() for part in table.pieces(window)), strict=True)
        ]
        for window in range(len(table.windows) - 1)
    ]
    assert facts["best-fit"] == pytest.approx(expected(lengths, packed, 16))
    assert facts["best-fit"]["cut_needlessly"] == facts["best-fit"]["left_out"] == 0
    assert facts["share_longer"] == sum(length > 16 for length in lengths) / len(lengths)
    assert facts["share_under_2048_tokens"] == 1
    json.dumps(facts)


def test_inspect_compares_packings_where_it_is_asked_to(make_shards: Any, numbered: Any) -> None:
    shards = make_shards("a", numbered(3000, 0))
    [facts] = inspect(shards.folder, packing=(256, 32))["sources"]["a"].values()
    assert facts["packing"]["best-fit"]["cut_needlessly"] == 0 < facts["packing"]["concatenate"]["cut_needlessly"]
    assert "packing" not in inspect(shards.folder)["sources"]["a"]["all"]
    with pytest.raises(InputError, match="--span 100: must be a multiple of --sequence 32"):
        inspect(shards.folder, packing=(100, 32))


def test_on_real_text_packing_saves_most_cuts_for_little_padding(shared_data: Path, tmp_path: Path) -> None:
    """Lengths in words of real documents; windows of 4,096 in spans of 64 windows."""
    with gzip.open(shared_data / "pretrain" / "en_technical_peps.jsonl.gz", "rt", encoding="utf-8") as rows:
        lengths = [len(json.loads(row)["text"].split()) for row in rows]
    write_shards(tmp_path, [[1] * length for length in lengths], eos=0, length=100, tokenizer="t")
    facts = packing_facts(Shards(tmp_path), 2**18, 4096)
    assert facts["best-fit"]["padding"] < 0.03
    assert facts["best-fit"]["cut"] == facts["share_longer"] < facts["concatenate"]["cut"]
