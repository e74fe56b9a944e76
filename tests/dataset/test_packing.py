"""Best-fit packing: no document that fits into a window is cut, and the table of windows holds every token once."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.dataset.packing import Table, best_fit, open_table, pack, packed_sources, write_table
from smelt.errors import InputError
from smelt.recipe.schema import Recipe

LENGTHS = st.lists(st.integers(0, 70), min_size=1, max_size=60)


@given(lengths=st.lists(st.integers(0, 30), max_size=60), room=st.integers(30, 50))
def test_the_longest_go_first_and_each_where_it_leaves_least_room(lengths: list[int], room: int) -> None:
    bins = best_fit(lengths, room)
    placed = [index for each in bins for index in each]
    assert sorted(placed) == [index for index, length in enumerate(lengths) if length]
    rooms: list[int] = []
    for length in sorted(filter(None, lengths), reverse=True):
        fitting = [left for left in rooms if left >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else room) - length)
    assert sorted(rooms) == sorted(room - sum(lengths[index] for index in each) for each in bins)


def test_a_window_that_can_be_filled_is_filled() -> None:
    assert best_fit([3, 5, 2, 5, 1], 8) == [[1, 0], [3, 2, 4]]


def windows(table: Table) -> list[list[tuple[int, int]]]:
    """(first token, tokens) of the pieces of each window."""
    return [
        list(zip(*(part.tolist() for part in table.pieces(window)), strict=True))
        for window in range(len(table.windows) - 1)
    ]


@settings(max_examples=60)
@given(lengths=LENGTHS, span=st.sampled_from([16, 64, 1024]), sequence=st.sampled_from([8, 16]))
def test_every_token_is_in_one_window_and_no_fitting_document_in_two(
    lengths: list[int], span: int, sequence: int
) -> None:
    table = pack([np.array(lengths)], sum(lengths), span, sequence)
    found = windows(table)
    seen = Counter(start + place for pieces in found for start, count in pieces for place in range(count))
    assert set(seen.values()) <= {1} and len(seen) == sum(lengths)
    assert all(0 < sum(count for _, count in pieces) <= sequence for pieces in found)
    ends = np.cumsum(lengths)
    held = {start: (window, count) for window, pieces in enumerate(found) for start, count in pieces}
    owners = [0] * len(found)
    for end, length in zip(ends.tolist(), lengths, strict=True):
        start = end - length
        while start < end:
            window, count = held[start]
            assert count == min(sequence, end - start), "only a document longer than a window is cut, into full ones"
            owners[window] = (end - length) // span
            start += count
    assert owners == sorted(owners), "windows come span by span"
    bounds = table.spans[:, 2].astype(int).tolist()
    assert [bounds[owner] <= window < bounds[owner + 1] for window, owner in enumerate(owners)] == [True] * len(found)


@settings(max_examples=30)
@given(lengths=LENGTHS, cuts=st.lists(st.integers(0, 60), max_size=4), data=st.data())
def test_a_table_is_the_same_however_its_documents_come_and_on_disk(
    tmp_path_factory: Any, lengths: list[int], cuts: list[int], data: st.DataObject
) -> None:
    parts = np.split(np.array(lengths), sorted(min(cut, len(lengths)) for cut in cuts))
    whole, folder = pack([np.array(lengths)], sum(lengths), 64, 16), tmp_path_factory.mktemp("t") / "table"
    write_table(iter(parts), sum(lengths), 64, 16, folder)
    stored = open_table(folder)
    for table in (pack(parts, sum(lengths), 64, 16), stored):
        assert all(np.array_equal(one, other) for one, other in zip(table, whole, strict=True))
    if sum(lengths):
        position = data.draw(st.integers(0, sum(lengths) - 1))
        start = int(np.searchsorted(np.cumsum(lengths), position, side="right"))
        begin = sum(lengths[:start])
        window = stored.find(begin // 64, position)
        assert window is not None
        assert any(first <= position < first + count for first, count in windows(whole)[window])
        assert stored.tokens(np.array([window])) == sum(count for _, count in windows(whole)[window])


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    write_table([np.array([3, 4, 5])], 12, 8, 8, tmp_path / "table")
    (tmp_path / "table" / "starts").write_bytes(b"")
    with pytest.raises(InputError, match=r"table/starts: 0 bytes where manifest\.json says 24"):
        open_table(tmp_path / "table")


def test_tables_are_made_for_what_stages_draw_packed(make_recipe: Any) -> None:
    stages = [
        {"name": "one", "steps": 1, "mixture": {"a": 1, "b": 0}},
        {"name": "two", "steps": 1, "mixture": {"a": 1, "b": 1}, "packing": "best-fit", "sequence": 16},
        {"name": "three", "steps": 1, "mixture": {"b": 1}, "packing": "concatenate"},
    ]
    assert packed_sources(make_recipe(stages)) == [("a", 16), ("b", 16)]
    packed = make_recipe(stages, packing="best-fit")
    assert packed_sources(packed) == [("a", 8), ("a", 16), ("b", 16)]
    again = Recipe.model_validate(
        {**packed.model_dump(), "amendments": [{"from_step": 1, "set": {"train.stages.1.packing": "concatenate"}}]}
    )
    assert packed_sources(again) == [("a", 8)]
