"""Which names came before, in 12 to 24 bytes a name, so that ids of many millions of rows can be compared."""

from array import array
from hashlib import blake2b


class Seen:
    """A set of names, by 64 bits of their hash: two of ten million are mistaken for one with a chance of 3e-6."""

    def __init__(self) -> None:
        self._table, self._count = array("Q", bytes(8 << 10)), 0

    def add(self, name: str) -> bool:
        """Whether the name is new; it is in the set from now on."""
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        new = self._insert(int.from_bytes(digest, "little") or 1)
        self._count += new
        if 3 * self._count > 2 * len(self._table):
            self._grow()
        return new

    def _insert(self, key: int) -> bool:
        table, mask = self._table, len(self._table) - 1
        at = key & mask
        while found := table[at]:
            if found == key:
                return False
            at = at + 1 & mask
        table[at] = key
        return True

    def _grow(self) -> None:
        old = self._table
        self._table = array("Q", bytes(16 * len(old)))
        for key in old:
            if key:
                self._insert(key)
