"""Readers behind a URL: S3, and a web server that breaks connections, sends whole files only, or changes a file."""

import contextlib
import gzip
import json
import os
import random
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from smelt.corpus import remote
from smelt.corpus.readers import inputs, parts, read
from smelt.errors import InputError
from smelt.recipe.sections.readers import Code, JsonLines, Parquet, TextFiles

pytest.importorskip("s3fs", reason="needs the extra 'remote'")

DRAWN = random.Random(0)
ROWS = [{"text": f"row {number} {DRAWN.randbytes(60).hex()}", "id": f"r{number}"} for number in range(6000)]
TEXTS = [row["text"] for row in ROWS]
PLAIN = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
HALF = "".join(json.dumps(row) + "\n" for row in ROWS[:3000]).encode()


class Shop(ThreadingHTTPServer):
    """A web server of files in memory. Each answer breaks off after `breaks[n]` bytes, where that is more than 0."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.breaks: list[int] = []
        self.always_breaks, self.asked = 0, []
        self.ranges: bool | None = True

    def handle_error(self, *_: object) -> None: ...

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shop

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name = self.path.lstrip("/").split("?")[0]
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start, end, asked = 0, len(content), re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            start, end = int(asked[1]), min(len(content), int(asked[2] or len(content)) + 1)
        self.send_response(206 if asked and self.server.ranges else 200)
        if asked and self.server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        if self.server.ranges is not None:  # None: says nothing of ranges, and has none
            self.send_header("Accept-Ranges", "bytes" if self.server.ranges else "none")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", self.server.tags.get(name, "1"))
        self.end_headers()
        if not body:
            return
        self.server.asked.append((start, end))
        until = self.server.breaks.pop(0) if self.server.breaks else self.server.always_breaks
        self.wfile.write(content[start : min(end, start + until) if until else end])
        if until and start + until < end:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None: ...


class Bridge:
    """Passes connections on to a server, and cuts each after so many bytes of answers."""

    def __init__(self, host: str, port: int, breaks_after: int) -> None:
        self._to, self._limit, self.broken = (host, port), breaks_after, 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]

    def __enter__(self) -> "Bridge":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            threading.Thread(target=self._pass, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, self._limit), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, left: int | None) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 14):
                sink.sendall(content if left is None else content[:left])
                left = None if left is None else left - len(content)
                if left is not None and left <= 0:
                    self.broken += 1
                    break
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(remote, "_FIRST_WAIT", 0.001)
    server = Shop()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server_module = pytest.importorskip("moto.server", reason="needs moto's S3 server")
    import fsspec

    patch = pytest.MonkeyPatch()
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")):
        patch.setenv(name, value)
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("raw")
    files.pipe_file("raw/web/a.jsonl.gz", gzip.compress(HALF))
    files.pipe_file("raw/web/b/c.jsonl.zst", zstandard.ZstdCompressor().compress(PLAIN[len(HALF) :]))
    files.pipe_file("raw/web/.old/d.jsonl", PLAIN)
    files.pipe_file("raw/web/notes.md", b"notes")
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink, row_group_size=1000)
    files.pipe_file("raw/table.parquet", sink.getvalue().to_pybytes())
    yield "s3://raw"
    server.stop()
    patch.undo()
    files.clear_instance_cache()


def texts(reader, **options) -> list[str]:
    return [each.text for each in read(reader, "web", 0, **options)]


def test_a_folder_of_a_bucket_is_read_like_a_folder_here(bucket: str) -> None:
    reader = JsonLines(kind="jsonl", path=f"{bucket}/web")
    assert parts(reader) == ["s3://raw/web/a.jsonl.gz", "s3://raw/web/b/c.jsonl.zst"]
    assert texts(reader) == TEXTS
    assert [text for part in parts(reader) for text in texts(reader, part=part)] == TEXTS
    assert texts(JsonLines(kind="jsonl", path=f"{bucket}/web/**/*.zst")) == TEXTS[3000:]


def test_a_bucket_behind_a_connection_that_breaks_is_read_to_the_end(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(remote, "_FIRST_WAIT", 0.001)
    host, _, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").partition(":")
    with Bridge(host, int(port), breaks_after=300_000) as bridge:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bridge.port}")
        s3fs.S3FileSystem.clear_instance_cache()
        assert texts(JsonLines(kind="jsonl", path=f"{bucket}/web")) == TEXTS
        assert texts(Parquet(kind="parquet", path=f"{bucket}/table.parquet")) == TEXTS
        assert bridge.broken >= 2
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_parquet_file_of_a_bucket_is_read(bucket: str) -> None:
    reader = Parquet(kind="parquet", path=f"{bucket}/table.parquet")
    found = list(read(reader, "web", 0))
    assert [(each.text, each.id) for each in found] == [(row["text"], row["id"]) for row in ROWS]


def test_a_file_that_changes_in_a_bucket_changes_what_a_fingerprint_takes(bucket: str) -> None:
    import s3fs

    reader = TextFiles(kind="text", path=f"{bucket}/one.txt")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    seen = []
    for content in (b"one", b"one", b"two"):
        files.pipe_file("raw/one.txt", content)
        remote._filesystem(bucket)[0].invalidate_cache()
        seen.append(inputs(reader, 0)["files"][0])
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("path", ["s3://raw/none.jsonl", "s3://raw/none/*.jsonl", "s3://absent/web"])
def test_what_is_not_in_a_bucket_is_named(bucket: str, path: str) -> None:
    with pytest.raises(InputError, match=re.escape(path)) as caught:
        texts(JsonLines(kind="jsonl", path=path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("ranges", [True, False, None])
def test_a_broken_connection_goes_on_at_its_byte(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, suffix: str, ranges: bool | None
) -> None:
    monkeypatch.setattr(remote, "_MOST", 1 << 17)
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(suffix, bytes)
    shop.files[f"a.jsonl{suffix}"] = pack(PLAIN)
    shop.ranges, shop.breaks = ranges, [10_000, 0, 50_000, 1, 0] if ranges else [10_000, 50_000, 300_000, 0]
    assert texts(JsonLines(kind="jsonl", path=shop.url(f"a.jsonl{suffix}"))) == TEXTS
    starts = [start for start, _ in shop.asked]
    if ranges:
        assert starts == sorted(starts) and len(set(starts)) >= 3
        assert sum(end - start for start, end in shop.asked) <= len(pack(PLAIN)) + 3 * (1 << 17)
    else:
        assert starts == [0] * (5 if ranges is None else 4)  # the fifth asked for a part


def test_a_server_that_never_sends_more_than_a_little_is_read_to_the_end(shop: Shop) -> None:
    shop.files["a.jsonl"], shop.always_breaks = PLAIN, 100_000
    assert texts(JsonLines(kind="jsonl", path=shop.url("a.jsonl"))) == TEXTS
    sent = sum(min(end - start, 100_000) for start, end in shop.asked)
    assert sent < 4 * len(PLAIN)


def test_parquet_goes_on_after_a_broken_connection(shop: Shop, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=1000)
    shop.files["a.parquet"], shop.breaks = (tmp_path / "a.parquet").read_bytes(), [100, 0, 30_000, 0, 5, 0]
    assert texts(Parquet(kind="parquet", path=shop.url("a.parquet"))) == TEXTS


@pytest.mark.parametrize("ranges", [False, None])
def test_parquet_from_a_server_of_whole_files_is_refused(
    shop: Shop, tmp_path: Path, ranges: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MOST", 1 << 16)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    shop.files["a.parquet"], shop.ranges = (tmp_path / "a.parquet").read_bytes(), ranges
    with pytest.raises(InputError, match=r"a\.parquet: is read in parts, but its server sends whole files only"):
        texts(Parquet(kind="parquet", path=shop.url("a.parquet")))


def test_a_connection_that_never_comes_back_is_one_line_that_names_the_byte(shop: Shop) -> None:
    shop.files["a.jsonl"], shop.always_breaks = PLAIN, 100
    bad: list = []
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read at byte 0 .* run the same command again") as caught:
        texts(JsonLines(kind="jsonl", path=shop.url("a.jsonl")), bad=bad.append)
    assert "\n" not in str(caught.value)
    assert not bad  # the file is not bad


def test_a_file_that_changes_between_two_connections_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MOST", 1 << 16)
    shop.files["a.jsonl"] = PLAIN
    reading = read(JsonLines(kind="jsonl", path=shop.url("a.jsonl")), "web", 0)
    next(reading)
    shop.tags["a.jsonl"], shop.breaks = "2", [100]
    with pytest.raises(InputError, match="changed while it was read"):
        list(reading)


def test_secrets_of_an_address_are_in_no_name(shop: Shop) -> None:
    shop.files["a.txt"], shop.files["b.jsonl"] = b"words", b'{"text": "x"}\n{"bad": 1}\n'
    bad: list = []
    address = shop.url("b.jsonl?signature=secret").replace("http://", "http://user:secret@")
    found = list(read(JsonLines(kind="jsonl", path=address), "web", 0, bad=bad.append))
    found += read(TextFiles(kind="text", path=shop.url("a.txt?signature=secret")), "web", 0)
    assert len(found) == 2 and len(bad) == 1
    assert "secret" not in str((found, bad, inputs(TextFiles(kind="text", path=shop.url("a.txt?key=secret")), 0)))


@pytest.mark.parametrize("url", ["nowhere://bucket/a.jsonl", "s4://bucket/a.jsonl"])
def test_a_url_that_no_filesystem_knows_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=f"{url}: cannot be used .* pip install") as caught:
        texts(JsonLines(kind="jsonl", path=url))
    assert "\n" not in str(caught.value)


def test_folders_of_pages_and_code_of_a_bucket_are_read(bucket: str) -> None:
    import s3fs

    files = s3fs.S3FileSystem()
    files.pipe_file("raw/repositories/forge/melt.py", b"ore = 1\n")
    files.pipe_file("raw/repositories/forge/vendor/other.py", b"ore = 2\n")
    files.pipe_file("raw/repositories/forge/ore.txt", b"notes")
    (found,) = read(Code(kind="code", path=f"{bucket}/repositories"), "code", 0)
    assert (found.id, found.text) == ("forge/melt.py", "ore = 1\n")
    assert texts(TextFiles(kind="text", path=f"{bucket}/repositories/**/*.txt")) == ["notes"]
