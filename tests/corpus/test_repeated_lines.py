"""Lines that many documents share: which go, where each one stays, and that parts counted apart say the same."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.duplicates import line_hashes, lines
from smelt.corpus.duplicates.lines import LineCounts, LineRemover, compared, repeated
from smelt.corpus.stages.folder import whole_file
from smelt.errors import InputError
from smelt.recipe.load import load_recipe
from smelt.recipe.sections.duplicates import Lines

Parts = list[list[str]]


def cleaned(folder: Path, section: Lines, parts: Parts, batch: int = 2) -> tuple[Parts, int]:
    """All texts without their repeated lines, and how many lines went."""
    files = []
    for number, texts in enumerate(parts):
        counts = LineCounts(section, folder / f"{number}.lines")
        for first in range(0, len(texts), batch):
            counts.add(texts[first : first + batch])
        counts.close()
        files.append(folder / f"{number}.lines")
    table = repeated(section, files)
    total, left = 0, []
    for number, texts in enumerate(parts):
        remover = LineRemover(section, table, number)
        edits = [remover.edit(index, text) for index, text in enumerate(texts)]
        left.append([text for text, _ in edits])
        total += sum(removed for _, removed in edits)
    return left, total


def test_a_line_of_many_documents_stays_in_the_first_alone(tmp_path: Path) -> None:
    notice = "Subscribe to our newsletter!"
    parts = [["one\n" + notice, notice + "\n two "], [f"three\n  {notice}  \n\nfour", "five"]]
    assert cleaned(tmp_path, Lines(max_documents=2), parts) == (
        [[parts[0][0], " two "], ["three\n\nfour", "five"]],
        2,
    )
    assert cleaned(tmp_path, Lines(max_documents=3), parts) == (parts, 0)


def test_a_line_repeated_within_one_document_counts_once(tmp_path: Path) -> None:
    parts = [["again and again\n" * 9], ["something else"]]
    assert cleaned(tmp_path, Lines(), parts) == (parts, 0)


def test_short_and_blank_lines_stay(tmp_path: Path) -> None:
    parts = [["    else:\n\nreturn None"], ["  else:\n\nreturn None"]]
    assert cleaned(tmp_path, Lines(min_characters=10), parts) == ([parts[0], ["  else:\n"]], 1)
    assert cleaned(tmp_path, Lines(min_characters=6), parts) == ([parts[0], ["  else:\n"]], 1)
    assert cleaned(tmp_path, Lines(min_characters=1), parts) == ([parts[0], [""]], 2)


def test_sources_are_counted_together_or_apart_or_not_at_all() -> None:
    names = ["web", "books", "code"]
    assert compared(Lines(), names) == [names]
    assert compared(Lines(sources=("code", "web")), names) == [["web", "code"]]
    assert compared(Lines(sources=("code", "web"), across=False), names) == [["web"], ["code"]]
    assert compared(Lines(sources=()), names) == []


def test_a_source_that_is_none_is_named_as_soon_as_the_recipe_is_read(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    sources = "{web: {read: {kind: python-docs}}, code: {read: {kind: python-source}}}"
    recipe.write_text(f"name: test\ncorpus:\n  sources: {sources}\n  lines: {{sources: [code, wbe]}}\n")
    said = r"yaml:4: corpus\.lines\.sources: no source 'wbe' \(sources there: web, code\); name one of them$"
    with pytest.raises(InputError, match=said):
        load_recipe(recipe)


def test_parts_without_documents_are_no_obstacle(tmp_path: Path) -> None:
    assert cleaned(tmp_path, Lines(), [[], [], [""]]) == ([[], [], [""]], 0)
    assert cleaned(tmp_path, Lines(), [[], ["a line of text"], ["a line of text"]]) == (
        [[], ["a line of text"], [""]],
        1,
    )


@given(st.lists(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=6), max_size=4), st.integers(1, 3))
def test_counting_in_small_runs_and_ranges_equals_counting_at_once(parts: Any, most: int) -> None:
    """However small the memory, and whatever the parts."""
    seen = Counter(line for part in parts for text in part for line in set(text))
    first: dict[str, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        for index, text in enumerate(part):
            for line in text:
                first.setdefault(line, (number, index))
    expected = [
        [
            "\n".join(line for line in text if seen[line] <= most or first[line] == (number, index))
            for index, text in enumerate(part)
        ]
        for number, part in enumerate(parts)
    ]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(lines, "RUN", 4)
        patch.setattr(lines, "_RANGE", 3)
        texts = [["\n".join(text) for text in part] for part in parts]
        left, _ = cleaned(Path(folder), Lines(max_documents=most, min_characters=1), texts)
    assert left == expected


def test_files_of_counts_hold_sorted_runs_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "RUN", 16)
    counts = LineCounts(Lines(min_characters=1), tmp_path / "counts")
    counts.add([str(number % 70) for number in range(200)])
    counts.close()
    rows = np.fromfile(tmp_path / "counts", lines.COUNTED)
    for start in range(0, len(rows), 16):
        assert (np.diff(rows["line"][start : start + 16].astype(object)) > 0).all()
    assert rows["documents"].sum() == 200 and len(np.unique(rows["line"])) == 70


def test_counts_whose_file_another_build_cleaned_away_leave_that_builds_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "RUN", 16)
    found = []
    for cleaned_away in (False, True):
        with whole_file(tmp_path / "00000.lines") as path:
            counts = LineCounts(Lines(min_characters=1), path)
            counts.add([str(number) for number in range(40)])
            if cleaned_away:
                path.unlink()
            counts.close()
        found.append((tmp_path / "00000.lines").read_bytes())
    assert found[0] == found[1] and len(found[0]) == 40 * lines.COUNTED.itemsize


@given(st.lists(st.text(st.one_of(st.characters(), st.sampled_from("ab \n\r\t\u3000\u2028\x85"))), max_size=5))
def test_compiled_line_hashes_equal_the_plain_ones(texts: list[str]) -> None:
    for shortest in (1, 4):
        for fast, plain in zip(line_hashes.fast(texts, shortest), line_hashes.plain(texts, shortest), strict=True):
            assert np.array_equal(fast, plain)
