"""`repeated_spans.measure` for a batch."""

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.filters.characters import Batch, flags
from smelt.corpus.filters.compiled.repeats import name_spans, word_spans
from smelt.corpus.filters.compiled.text import compiled


def measure_all(batch: Batch, max_span: int) -> NDArray[np.float64]:
    """[texts, columns]."""
    scores = np.zeros((len(batch.starts) - 1, 1))
    _measure(batch.codes, batch.starts, flags(), max_span, scores)
    return scores


@compiled
def _measure(codes, starts, flags, max_span, scores):  # type: ignore[no-untyped-def]
    for text in range(len(starts) - 1):
        word_starts, word_ends = word_spans(codes, starts[text], starts[text + 1], flags)
        words = np.empty(len(word_starts), np.int64)
        name_spans(codes, word_starts, word_ends, words)
        most = 1 if len(words) else 0
        for span in range(1, max_span + 1):
            run = 0
            for at in range(span, len(words)):
                run = run + 1 if words[at] == words[at - span] else 0
                if run >= span * most:
                    most = run // span + 1
        scores[text, 0] = most
