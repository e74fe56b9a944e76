"""The tokenizer lab's figures show every tokenizer, language and size, and nothing that may not be compared."""

import numpy as np
import pytest

from smelt.report.style import svg
from smelt.report.tokenizer_plots import comparison, vocabulary_sweep


def test_every_tokenizer_has_a_bar_in_every_language_it_was_measured_on() -> None:
    values = {"ours": {"en": 1.5, "fr": 1.75}, "theirs": {"en": 2.0, "fr": 2.5}}
    figure = comparison({"fertility": values, "pcw": values})
    assert len(figure.axes) == 2
    heights = [[patch.get_height() for patch in axes.patches] for axes in figure.axes]
    assert heights == [[1.5, 1.75, 2.0, 2.5]] * 2
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["en", "fr"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "theirs"]


def test_a_sweep_shows_tokens_against_the_smallest_size_and_what_a_doubling_saves() -> None:
    """TOK-04, TOK-08: sources of many languages share an axis only as shares of their own tokens."""
    rows = [
        {"ids": ids, "tokens": {"en": en, "zh": zh}} for ids, en, zh in ((1024, 80, 40), (2048, 60, 30), (8192, 50, 20))
    ]
    figure = vocabulary_sweep(rows, [0.1, 0.2, 0.4])
    tokens, saved, share = figure.axes
    assert [list(line.get_ydata()) for line in tokens.lines] == [[100, 75, 62.5], [100, 75, 50]]
    assert [patch.get_height() for patch in saved.patches] == pytest.approx([25, 100 * (1 - np.sqrt(70 / 90))])
    assert list(share.lines[0].get_ydata()) == pytest.approx([10, 20, 40])
    assert "1Ki" in svg(figure, "sweep") and "8Ki" in svg(figure, "sweep")
    assert len(vocabulary_sweep(rows).axes) == 2
