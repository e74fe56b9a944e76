"""Packed streams: the same bytes as the plain file, in bounded memory, whatever was packed or broken."""

import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.corpus import streams
from smelt.corpus.bad import Unreadable
from smelt.errors import InputError

BLOCKS = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda byte, count: byte * count, st.binary(min_size=1, max_size=1), st.integers(0, 400_000)),
    st.builds(lambda seed: random.Random(seed).randbytes(150_000), st.integers(0, 9)),
)


def zstd(content: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)


def zstd_stream(content: bytes) -> bytes:
    """A frame that doesn't say how long it is."""
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return packer.compress(content) + packer.flush()


@settings(max_examples=30)
@given(st.lists(st.tuples(BLOCKS, st.integers(0, 4)), min_size=1, max_size=4))
def test_packed_parts_give_the_bytes_that_were_packed(tmp_path_factory, parts: list[tuple[bytes, int]]) -> None:
    folder = tmp_path_factory.getbasetemp()
    skippable = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    packs = (
        zstd,
        zstd_stream,
        lambda part: zstd(part, write_checksum=True),
        lambda part: zstd(part, write_content_size=False),
        lambda part: skippable + zstd(part),
    )
    (folder / "a.zst").write_bytes(b"".join(packs[how](part) for part, how in parts))
    (folder / "a.gz").write_bytes(b"".join(gzip.compress(part) + bytes(how) for part, how in parts))
    whole = b"".join(part for part, _ in parts)
    for name in ("a.zst", "a.gz"):
        found = list(streams.chunks(folder / name))
        assert b"".join(found) == whole
        assert max(map(len, found)) <= 1 << 20


@settings(max_examples=25)
@given(st.integers(1, 10_000), st.sampled_from([".gz", ".zst"]))
def test_what_comes_before_a_cut_is_read_and_the_cut_is_an_error(tmp_path_factory, cut: int, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"cut{suffix}"
    whole = b"".join(b"%d %d\n" % (number, number * 7919 % 10007) for number in range(30_000))
    packed = gzip.compress(whole) if suffix == ".gz" else zstd(whole, write_checksum=True)
    path.write_bytes(packed[: max(1, len(packed) * cut // 10_001)])
    found = b""
    with pytest.raises(Unreadable, match="truncated"):
        for chunk in streams.chunks(path):
            found += chunk
    assert whole.startswith(found)
    assert len(found) >= len(whole) * cut / 10_001 - 150_000


def test_a_changed_byte_is_an_error(tmp_path: Path) -> None:
    whole = random.Random(0).randbytes(100_000)
    for suffix, packed in ((".gz", gzip.compress(whole)), (".zst", zstd(whole, write_checksum=True))):
        damaged = bytearray(packed)
        damaged[5000] ^= 1
        (tmp_path / f"a{suffix}").write_bytes(damaged)
        with pytest.raises(InputError, match=r"not valid (gzip|zstd) data"):
            list(streams.chunks(tmp_path / f"a{suffix}"))


READ = """
import resource, sys
from smelt.corpus.readers import read
from smelt.recipe.sections.readers import JsonLines
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
list(read(JsonLines(kind="jsonl", path=sys.argv[2]), "s", 0))  # every import done
before, bad = peak(), []
kept = [each.text for each in read(JsonLines(kind="jsonl", path=sys.argv[1]), "s", 0, bad=bad.append)]
print(kept, [(each.place.rsplit("/")[-1], each.reason, len(each.excerpt)) for each in bad], peak() - before, sep="\\n")
"""


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_line_of_a_gigabyte_is_passed_over_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """A line of 1 GiB, which a file of some kB can hold, costs 64 MiB and is named; its neighbours are read."""
    path, small = tmp_path / f"a.jsonl{suffix}", tmp_path / f"b.jsonl{suffix}"
    pack = gzip.compress if suffix == ".gz" else zstd
    before, after = pack(b'{"text": "before"}\n{"text": "'), pack(b'"}\n{"text": "after"}\n')
    path.write_bytes(before + 64 * pack(b"x" * 2**24) + after)
    small.write_bytes(pack(b'{"text": "x"}'))
    done = subprocess.run([sys.executable, "-c", READ, path, small], capture_output=True, text=True, check=True)
    kept, bad, grown = done.stdout.splitlines()
    assert kept == "['before', 'after']"
    assert bad == f"[('a.jsonl{suffix}:2', 'longer than 67,108,864 bytes', 200)]"
    assert int(grown) < 200  # MiB
