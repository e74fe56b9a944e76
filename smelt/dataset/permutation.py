"""Keyed permutations of 0..n-1 that answer for any single index: no table, so any n costs the same."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]
_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_ODD = np.uint64(0xD1B54A32D192ED03)


def permute(index: Integers, size: Integers, key: Keys) -> Integers:
    """The image of each `index` under the permutation of 0..size-1 that its `key` names; 1-D arrays of one length.

    A Feistel network over a grid of rows x columns just above `size`, with addition in place of exclusive or; results
    outside 0..size-1 are sent through again until they fall inside (Black & Rogaway 2002, "Ciphers with arbitrary
    finite domains": the generalised Feistel and the cycle-walking methods).
    """
    return _walk(index, size, key, _feistel)


def invert(image: Integers, size: Integers, key: Keys) -> Integers:
    """The index that `permute` sends to each `image`; arguments as there."""
    return _walk(image, size, key, _feistel_back)


def _walk(start: Integers, size: Integers, key: Keys, network: Callable[..., Keys]) -> Integers:
    """Send each `start` through the network until it falls inside 0..size-1."""
    rows = np.ceil(np.sqrt(size)).astype(np.uint64)
    columns = (size.astype(np.uint64) + rows - np.uint64(1)) // rows
    place = network(start.astype(np.uint64), rows, columns, key)
    outside = np.flatnonzero(place >= size.astype(np.uint64))
    while outside.size:
        place[outside] = network(place[outside], rows[outside], columns[outside], key[outside])
        outside = outside[place[outside] >= size[outside].astype(np.uint64)]
    return place.astype(np.int64)


def derive(key: Keys, number: Integers) -> Keys:
    """A key for each pair (key, number): numbers of one key give keys that have nothing to do with each other."""
    return _mix(key + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def key_of(*parts: int | str) -> int:
    """64 bits that identify `parts`, the same on every machine."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"smelt order").digest(), "little")


def _feistel(value: Keys, rows: Keys, columns: Keys, key: Keys) -> Keys:
    left, right = value // columns, value % columns
    for number in range(_ROUNDS):
        salt = key + np.uint64(number * _GOLDEN % 2**64)
        if number % 2:
            left = (left + _mix(salt + right * _ODD) % rows) % rows
        else:
            right = (right + _mix(salt + left * _ODD) % columns) % columns
    return left * columns + right


def _feistel_back(value: Keys, rows: Keys, columns: Keys, key: Keys) -> Keys:
    left, right = value // columns, value % columns
    for number in reversed(range(_ROUNDS)):
        salt = key + np.uint64(number * _GOLDEN % 2**64)
        if number % 2:
            left = (left + rows - _mix(salt + right * _ODD) % rows) % rows
        else:
            right = (right + columns - _mix(salt + left * _ODD) % columns) % columns
    return left * columns + right


def _mix(x: Keys) -> Keys:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every output bit depends on every input bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
