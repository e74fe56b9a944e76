"""What windows of a length cost a source's documents, concatenated and packed: padding, cuts, and wasted attention."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from smelt.dataset.packing import Table
from smelt.dataset.permutation import Integers
from smelt.dataset.shards import Shards

SHORT = 2048  # tokens
_PIECES = 2**22  # read at a time


class _Counted(NamedTuple):
    """Documents that lie in more than one window, those of them that would have fitted into one, and pairs of tokens
    (one attends to the other or itself) within the parts of documents in windows."""

    cut: int
    needlessly: int
    pairs: int


def packing_facts(shards: Shards, span: int, sequence: int) -> dict[str, Any]:
    """How a source fares in windows of `sequence` tokens under each kind of packing, JSON-serialisable.

    `documents`, `tokens`, `share_under_2048_tokens` (of documents) and `share_longer` (than a window), and by kind:
    `windows` an epoch, `padding` (share of their tokens), `left_out` (tokens in no window), `cut` (share of documents
    that lie in more than one window), `cut_needlessly` (share that do though they would have fitted into one), and
    `attention_saved`: the share of the pairs of tokens, causal, that a mask at document ends leaves out.
    """
    sizes = list(shards.lengths())
    count = sum(len(each) for each in sizes)
    table = shards.packed(span, sequence)
    _, tokens, windows = map(int, table.spans[-1])
    facts: dict[str, Any] = {
        "documents": count,
        "tokens": shards.tokens,
        f"share_under_{SHORT}_tokens": sum(int((each < SHORT).sum()) for each in sizes) / count,
        "share_longer": sum(int((each > sequence).sum()) for each in sizes) / count,
    }
    concatenated = shards.tokens // sequence
    counts = {
        "concatenate": (concatenated, concatenated * sequence, _concatenated(sizes, concatenated * sequence, sequence)),
        "best-fit": (windows, tokens, _packed(sizes, table, windows, sequence)),
    }
    for kind, (number, held, counted) in counts.items():
        pairs = number * sequence * (sequence + 1) // 2
        facts[kind] = {
            "windows": number,
            "padding": 1 - held / (number * sequence) if number else 0.0,
            "left_out": shards.tokens - held,
            "cut": counted.cut / count,
            "cut_needlessly": counted.needlessly / count,
            "attention_saved": 1 - counted.pairs / pairs if number else 0.0,
        }
    return facts


def _concatenated(sizes: list[Integers], limit: int, sequence: int) -> _Counted:
    """Documents in the stream's windows, which end at `limit`."""
    counted, at = _Counted(0, 0, 0), 0
    for lengths in sizes:
        ends = np.minimum(at + np.cumsum(lengths), limit)
        starts = np.minimum(at + np.cumsum(lengths) - lengths, limit)
        at += int(lengths.sum())
        held = ends > starts
        starts, ends, lengths = starts[held], ends[held], lengths[held]
        edges = (ends - 1) // sequence - starts // sequence  # between windows, inside the document
        first = np.where(edges > 0, sequence - starts % sequence, ends - starts)
        last = np.where(edges > 0, (ends - 1) % sequence + 1, 0)
        whole = np.maximum(edges - 1, 0).sum()
        counted = _Counted(
            counted.cut + int((edges > 0).sum()),
            counted.needlessly + int(((edges > 0) & (lengths <= sequence)).sum()),
            counted.pairs + _pairs(first) + _pairs(last) + int(whole) * _pairs(np.array([sequence])),
        )
    return counted


def _packed(sizes: list[Integers], table: Table, windows: int, sequence: int) -> _Counted:
    """Documents in packed windows; padding attends to itself."""
    pairs = sum(_pairs(table.lengths[at : at + _PIECES].astype(np.int64)) for at in _steps(len(table.lengths)))
    for at in _steps(windows):
        before = table.windows[at : min(at + _PIECES, windows) + 1, 1].astype(np.int64)
        held = before[1:] - before[:-1]
        pairs += _pairs(sequence - held)
    return _Counted(sum(int((each > sequence).sum()) for each in sizes), 0, pairs)


def _steps(count: int) -> Iterator[int]:
    yield from range(0, count, _PIECES)


def _pairs(lengths: Integers) -> int:
    return int((lengths * (lengths + 1) // 2).sum())
