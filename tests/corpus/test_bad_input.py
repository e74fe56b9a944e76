"""Bad input is reported by file and line with a reason that can be counted, and what can still be read is read."""

import gzip
import json
import os
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from smelt.corpus.readers import Bad, inputs, read
from smelt.errors import InputError
from smelt.recipe.sections.readers import Chat, JsonLines, Parquet, TextFiles

pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def both(reader, folder: Path) -> tuple[list[str], list[tuple[str, str, int]]]:
    """Texts, and (file:line, reason, rows) of what is bad."""
    bad: list[Bad] = []
    texts = [each.text for each in read(reader, "web", 0, bad=bad.append)]
    return texts, [(each.place.removeprefix(f"{folder}/"), each.reason, each.rows) for each in bad]


def jsonl(folder: Path, **fields) -> JsonLines:
    return JsonLines(kind="jsonl", path=str(folder), **fields)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_bad_line_is_reported_and_the_others_are_read(tmp_path: Path, suffix: str) -> None:
    lines = [
        b'{"text": "first"}',
        b'{"text": "caf\xe9"}',
        b'{"text": "cut',
        b"",
        b'["a list"]',
        b'{"content": "drifted"}',
        b'{"text": 7}',
        b'{"text": ["a", "b"]}',
        b'{"text": "' + b"long " * 100 + b'"}',
        b'{"text": "' + b"[" * 90 + b'"}',
        b"[" * 100,
        b'{"text": null}',
        b'{"text": "last"}',
    ]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack[suffix](b"\n".join(lines)))
    texts, bad = both(jsonl(tmp_path, max_bytes=200), tmp_path)
    assert texts == ["first", "[" * 90, "", "last"]
    name = f"a.jsonl{suffix}"
    assert bad == [
        (f"{name}:2", "not UTF-8", 1),
        (f"{name}:3", "not valid JSON", 1),
        (f"{name}:5", "not a JSON object", 1),
        (f"{name}:6", "has no field 'text'", 1),
        (f"{name}:7", "field 'text' holds int, not text", 1),
        (f"{name}:8", "field 'text' holds list, not text", 1),
        (f"{name}:9", "longer than 200 bytes", 1),
        (f"{name}:11", "not valid JSON", 1),
    ]


def test_nested_beyond_measure_is_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"[" * 200_000 + b'\n{"text": "x"}\n')
    assert both(jsonl(tmp_path), tmp_path) == (["x"], [("a.jsonl:1", "not valid JSON", 1)])


def test_excerpts_show_the_beginning_even_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xe9 ' + b"x" * 1000 + b'"}\n{"text": ' + b"y" * 1000 + b"\n")
    bad: list[Bad] = []
    assert not list(read(jsonl(tmp_path), "web", 0, bad=bad.append))
    assert bad[0].excerpt.startswith('{"text": "caf\\xe9 xxx') and len(bad[0].excerpt) <= 200
    assert bad[1].excerpt == '{"text": ' + "y" * 191
    json.dumps([each.excerpt for each in bad]).encode()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_an_empty_file_among_others_is_reported(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack[suffix](b""))
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "x"}')
    assert both(jsonl(tmp_path), tmp_path) == (["x"], [(f"a.jsonl{suffix}", "empty file", 1)])
    with pytest.raises(InputError, match="empty file; remove it"):
        list(read(jsonl(tmp_path), "web", 0))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_the_lines_before_a_cut_are_read(tmp_path: Path, suffix: str) -> None:
    rows = [f"{number} {number * 7919 % 10007}" for number in range(50_000)]
    whole = pack[suffix]("".join(json.dumps({"text": row}) + "\n" for row in rows).encode())
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "other"}')
    texts, bad = both(jsonl(tmp_path), tmp_path)
    assert texts[:-1] == rows[: len(texts) - 1] and len(texts) > 20_000 and texts[-1] == "other"
    place = f"a.jsonl{suffix}:{len(texts)}"  # the line in which the cut is
    assert bad == [(place, "ends in the middle of its compressed data (truncated)", 1)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damage_early_in_a_file_weighs_as_much_as_the_rows_after_it(tmp_path: Path, suffix: str) -> None:
    drawn = random.Random(0)
    rows = [drawn.randbytes(50).hex() for _ in range(20_000)]
    first, rest = (
        pack[suffix]("".join(json.dumps({"text": row}) + "\n" for row in some).encode())
        for some in (rows[:5_000], rows[5_000:])
    )
    (tmp_path / f"a.jsonl{suffix}").write_bytes(first + b"\xff" + rest)
    texts, [(place, reason, weight)] = both(jsonl(tmp_path), tmp_path)
    assert texts == rows[:5_000]
    assert (place, reason) == (f"a.jsonl{suffix}:5001", f"not valid {'gzip' if suffix == '.gz' else 'zstd'} data")
    assert 12_000 < weight < 18_000


def test_an_id_that_came_before_is_reported_unless_rows_are_named_by_line(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "id": n % 3, "key": n} for n in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    repeated = [(f"a.jsonl:{line}", "an id that came before", 1) for line in (4, 5)]
    assert both(jsonl(tmp_path), tmp_path) == (["t0", "t1", "t2"], repeated)
    for field in (None, "key"):
        assert both(jsonl(tmp_path, id_field=field), tmp_path) == ([f"t{n}" for n in range(5)], [])
    with pytest.raises(InputError, match=r"a\.jsonl:4: an id that came before \(0\); .*read.id_field"):
        list(read(jsonl(tmp_path), "web", 0))


def table(path: Path, columns: dict, **options) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)


def test_parquet_files_of_another_schema_are_lost_with_all_their_rows(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", {"text": ["a0", "a1"], "id": ["0", "1"]})
    table(tmp_path / "b.parquet", {"content": ["b0", "b1", "b2"]})
    table(tmp_path / "c.parquet", {"text": [1, 2]})
    table(tmp_path / "d.parquet", {"text": pyarrow.array([b"d0", b"caf\xe9", b"d2"], pyarrow.binary())})
    table(tmp_path / "e.parquet", {"text": pyarrow.array(["e0", None]).dictionary_encode(), "id": [0, 0]})
    (tmp_path / "f.parquet").write_bytes(b"")
    (tmp_path / "g.parquet").write_bytes(b"PAR1 not at all")
    texts, bad = both(Parquet(kind="parquet", path=str(tmp_path)), tmp_path)
    assert texts == ["a0", "a1", "d0", "d2", "e0"]
    assert bad == [
        ("b.parquet", "has no field 'text'", 3),
        ("c.parquet:1", "field 'text' holds int, not text", 1),
        ("c.parquet:2", "field 'text' holds int, not text", 1),
        ("d.parquet:2", "not UTF-8", 1),
        ("e.parquet:2", "an id that came before", 1),
        ("f.parquet", "empty file", 1),
        ("g.parquet", "not a readable Parquet file", 1),
    ]


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string()])
def test_text_of_parquet_that_is_no_utf8_costs_its_row_alone(tmp_path: Path, kind: pyarrow.DataType) -> None:
    offsets = pyarrow.int64() if kind == pyarrow.large_string() else pyarrow.int32()
    places = pyarrow.array([0, 2, 5, 7], offsets).buffers()[1]
    column = pyarrow.Array.from_buffers(kind, 3, [None, places, pyarrow.py_buffer(b"abx\xe9yef")])
    table(tmp_path / "a.parquet", {"text": column})
    texts, bad = both(Parquet(kind="parquet", path=str(tmp_path)), tmp_path)
    assert (texts, bad) == (["ab", "ef"], [("a.parquet:2", "not UTF-8", 1)])


def test_a_damaged_row_group_is_lost_alone(tmp_path: Path) -> None:
    rows = [f"row {number} {number * 7919 % 10007}" for number in range(3000)]
    table(tmp_path / "a.parquet", {"text": rows}, row_group_size=1000, compression="zstd", use_dictionary=False)
    column = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 200] = bytes(200)
    (tmp_path / "a.parquet").write_bytes(content)
    texts, bad = both(Parquet(kind="parquet", path=str(tmp_path)), tmp_path)
    assert texts == rows[:1000] + rows[2000:]
    assert bad == [("a.parquet: row group 1", "not a readable part of a Parquet file", 1000)]


def test_a_row_of_parquet_that_is_too_long_is_bad(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", {"text": ["short", "é" * 60, "é" * 50]})
    texts, bad = both(Parquet(kind="parquet", path=str(tmp_path), max_bytes=100), tmp_path)
    assert (texts, bad) == (["short", "é" * 50], [("a.parquet:2", "longer than 100 bytes", 1)])


def test_text_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    for name, content in {
        "a": b"fine",
        "b": b"",
        "c": b"caf\xe9",
        "d": b"x" * 101,
        "e.gz": gzip.compress(b"y"),
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "f.gz").write_bytes(gzip.compress(b"cut off")[:-5])
    texts, bad = both(TextFiles(kind="text", path=str(tmp_path), max_bytes=100), tmp_path)
    assert texts == ["fine", "y"]
    assert bad == [
        ("b", "empty file", 1),
        ("c", "not UTF-8", 1),
        ("d", "longer than 100 bytes", 1),
        ("f.gz", "ends in the middle of its compressed data (truncated)", 1),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x"}, "has no field 'messages'"),
        ({"messages": []}, "field 'messages' is no list of messages"),
        ({"messages": ["hi"]}, "a message is no object"),
        ({"messages": [{"content": "hi"}]}, "a message has no role"),
        ({"messages": [{"role": "user", "content": 3}]}, "a message's content is int, not text"),
    ],
)
def test_a_bad_conversation_is_reported(tmp_path: Path, row: dict, reason: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert both(Chat(kind="chat", path=str(tmp_path)), tmp_path) == ([], [("a.jsonl:1", reason, 1)])


def test_half_characters_in_names_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x", "id": "\\ud800", "url": "\\udfff"}\n{"text": "\\ud83d"}\nno\n')
    os.rename(tmp_path / "a.jsonl", os.path.join(os.fsencode(tmp_path), b"caf\xe9.jsonl"))
    bad: list[Bad] = []
    reader = jsonl(tmp_path)
    found = list(read(reader, "web", 0, bad=bad.append))
    assert (found[0].id, found[0].facts["url"]) == (r"\ud800", r"\udfff")
    assert found[1].id == rf"{tmp_path}/caf\udce9.jsonl:2"
    assert bad[0].place == rf"{tmp_path}/caf\udce9.jsonl:3"
    json.dumps([inputs(reader, 0), found[1].id, [each.place for each in bad]], ensure_ascii=False).encode()
    with pytest.raises(InputError) as caught:
        list(read(reader, "web", 0))
    str(caught.value).encode()
