"""Keyed permutations: bijective for every size, different for every key, without a table."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from smelt.dataset.permutation import derive, key_of, permute


def image(size: int, key: int) -> np.ndarray:
    return permute(np.arange(size), np.full(size, size), np.full(size, key, dtype=np.uint64))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_every_index_is_hit_once(size: int, key: int) -> None:
    assert sorted(image(size, key).tolist()) == list(range(size))


def test_keys_give_different_permutations() -> None:
    images = [tuple(image(100, key_of("seed", number)).tolist()) for number in range(200)]
    assert len(set(images)) == 200


def test_an_index_lands_everywhere_equally_often() -> None:
    size, keys = 10, 20_000
    key = derive(np.full(keys, 1, dtype=np.uint64), np.arange(keys))
    for index in range(size):
        landed = np.bincount(permute(np.full(keys, index), np.full(keys, size), key), minlength=size)
        assert abs(landed / keys - 1 / size).max() < 0.012  # five standard deviations


def test_elements_of_one_call_do_not_touch_each_other() -> None:
    sizes, keys = np.array([1, 2, 7, 1000, 10**9, 2**45]), np.arange(6, dtype=np.uint64)
    index = sizes - 1
    alone = [permute(index[i : i + 1], sizes[i : i + 1], keys[i : i + 1])[0] for i in range(6)]
    assert permute(index, sizes, keys).tolist() == alone
    assert all(0 <= value < size for value, size in zip(alone, sizes, strict=True))


def test_neighbours_are_torn_apart() -> None:
    shuffled = image(100_000, 7)
    assert (np.abs(np.diff(shuffled)) == 1).mean() < 1e-3
    assert abs(np.corrcoef(np.arange(100_000), shuffled)[0, 1]) < 0.02
