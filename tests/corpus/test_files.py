"""File readers: every layout and packing, and one clear line for each thing that can be wrong with a file."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus import streams
from smelt.corpus.readers import parts, read
from smelt.errors import InputError
from smelt.recipe.sections.readers import JsonLines, Parquet, TextFiles

ROWS = [{"text": f"row {index} é\u2028x", "id": f"r{index}"} for index in range(5)]


def packed(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(pack(content))
    return path


def jsonl(rows: list) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def texts(reader) -> list[str]:
    return [document.text for document in read(reader, "web", 0)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_is_read_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    path = packed(tmp_path / f"a.jsonl{suffix}", jsonl(ROWS))
    found = list(read(JsonLines(kind="jsonl", path=str(path)), "web", 0))
    assert [(each.text, each.id, each.source) for each in found] == [(row["text"], row["id"], "web") for row in ROWS]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    path = packed(tmp_path / f"a.txt{suffix}", "\ufeffline é\r\nline two\n".encode())
    assert texts(TextFiles(kind="text", path=str(path))) == ["line é\r\nline two\n"]


def test_a_folder_is_read_recursively_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl.gz", "a/b/c.jsonl.zst", "notes.md", ".hidden/x.jsonl"):
        packed(tmp_path / name, jsonl([{"text": name}]))
    reader = JsonLines(kind="jsonl", path=str(tmp_path))
    assert texts(reader) == ["a/b/c.jsonl.zst", "a/z.jsonl.gz", "b.jsonl"]
    assert texts(reader.model_copy(update={"path": str(tmp_path / "**" / "*.gz")})) == ["a/z.jsonl.gz"]


def test_names_do_not_depend_on_how_a_folder_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path / "b" / "a.jsonl", jsonl([{"text": "x"}]))
    monkeypatch.chdir(tmp_path)
    for path, name in (
        (".", "b/a.jsonl"),
        ("./b/", "b/a.jsonl"),
        ("./*/*.jsonl", "b/a.jsonl"),
        ("b//a.jsonl", "b/a.jsonl"),
    ):
        assert parts(JsonLines(kind="jsonl", path=path)) == [name]


def test_parquet_is_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for part in range(2):
        table = pyarrow.table({"body": [f"{part}-{row}" for row in range(600)], "n": list(range(600))})
        pyarrow.parquet.write_table(table, tmp_path / f"part-{part}.parquet")
    reader = Parquet(kind="parquet", path=str(tmp_path), field="body")
    assert texts(reader) == [f"{part}-{row}" for part in range(2) for row in range(600)]
    with pytest.raises(InputError, match=r"part-0\.parquet: has no field 'text' \(fields there: body, n\)"):
        texts(Parquet(kind="parquet", path=str(tmp_path)))
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        texts(reader)


def test_a_row_without_an_id_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.jsonl", b'{"text": "one"}\n\n{"text": "two"}')
    assert [each.id for each in read(JsonLines(kind="jsonl", path=str(path)), "web", 0)] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"body": "x", "n": 1}', r"a\.jsonl:2: has no field 'text' \(fields there: body, n\); set read.field"),
        (b'{"text": 3}', r"a\.jsonl:2: field 'text' holds int"),
        (b'{"text": "x"', r"a\.jsonl:2: not valid JSON"),
        (b'{"text": "\xff"}', r"a\.jsonl:2: not UTF-8 \(at byte 10\); convert it"),
        (b'["x"]', r"a\.jsonl:2: not a JSON object; give an object .* instead of a list"),
    ],
)
def test_a_bad_line_is_named_with_its_mend(tmp_path: Path, line: bytes, message: str) -> None:
    path = packed(tmp_path / "a.jsonl", b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(InputError, match=message) as caught:
        texts(JsonLines(kind="jsonl", path=str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_never_taken_for_a_whole_one(tmp_path: Path, suffix: str, part: float) -> None:
    rows = [{"text": f"{index} {hash_} " * 20} for index, hash_ in enumerate(range(7, 9000, 13))]
    path = packed(tmp_path / f"a.jsonl{suffix}", jsonl(rows))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=r"truncated|not valid JSON"):
        texts(JsonLines(kind="jsonl", path=str(path)))
    with pytest.raises(InputError, match="truncated"):
        list(streams.chunks(path))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(b"just text, not packed at all")
    with pytest.raises(InputError, match=r"not valid (gzip|zstd) data"):
        texts(JsonLines(kind="jsonl", path=str(path)))


def test_files_of_several_packed_parts_are_read_whole(tmp_path: Path) -> None:
    pack = zstandard.ZstdCompressor().compress
    (tmp_path / "a.jsonl.zst").write_bytes(pack(jsonl(ROWS[:2])) + pack(jsonl(ROWS[2:])))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS[:2])) + gzip.compress(jsonl(ROWS[2:])))
    assert texts(JsonLines(kind="jsonl", path=str(tmp_path))) == [row["text"] for row in ROWS] * 2


def test_missing_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        texts(JsonLines(kind="jsonl", path=str(tmp_path / "absent.jsonl")))
    with pytest.raises(InputError, match="matches no file"):
        texts(JsonLines(kind="jsonl", path=str(tmp_path / "*.jsonl")))
    with pytest.raises(InputError, match="no jsonl files in this folder"):
        texts(JsonLines(kind="jsonl", path=str(tmp_path)))


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path / "a.jsonl", jsonl(ROWS))
    (tmp_path / "private").mkdir()
    scandir = os.scandir

    def denied(folder: Any) -> Any:
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match=r"/private: may not be read; change its permissions, or name another path$"):
        texts(JsonLines(kind="jsonl", path=str(tmp_path)))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8 \(at byte 3\)"):
        texts(TextFiles(kind="text", path=str(tmp_path)))


@given(st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), max_size=50), st.integers(1, 7))
def test_lines_do_not_depend_on_where_chunks_end(tmp_path_factory, content: list[bytes], size: int) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(b"\n".join(content))
    joined = b"\n".join(content).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    wanted = [
        (number, line.removesuffix(b"\r")) for number, line in enumerate(joined, 1) if line and not line.isspace()
    ]
    before = streams._CHUNK
    streams._CHUNK = size
    try:
        assert list(streams.lines(path)) == wanted
    finally:
        streams._CHUNK = before
