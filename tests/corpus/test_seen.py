"""Which names came before."""

from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.seen import Seen


@given(st.lists(st.text(max_size=3), max_size=200))
def test_a_name_is_new_once(names: list[str]) -> None:
    seen, known = Seen(), set()
    for name in names:
        assert seen.add(name) == (name not in known)
        known.add(name)


def test_names_are_kept_while_the_table_grows_and_take_few_bytes() -> None:
    seen = Seen()
    assert all(seen.add(f"row-{number}") for number in range(40_000))
    assert not any(seen.add(f"row-{number}") for number in range(40_000))
    assert seen._table.itemsize * len(seen._table) <= 24 * 40_000
