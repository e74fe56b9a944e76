"""The hub reader against a web server that answers as the hub does, connections breaking on the way."""

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("datasets", reason="needs the extra 'data'")

COMMIT = "1" * 40
CARD = """---
configs:
- config_name: easy
  data_files:
  - {split: train, path: "easy/train-*.parquet"}
  - {split: test, path: "easy/test-*.parquet"}
- config_name: notes
  data_files: notes.jsonl
- config_name: hard
  data_files: hard.jsonl.gz
---
"""


class HubServer(ThreadingHTTPServer):
    """One dataset, `team/ore`, of files in a folder; the first `breaks` downloads end after 1,000 bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubAnswer)
        self.folder, self.breaks = folder, 0
        self.ranges: list[tuple[str, int]] = []

    def files(self) -> list[dict]:
        found = sorted(file for file in self.folder.rglob("*") if file.is_file())
        return [self.entry(file.relative_to(self.folder).as_posix()) for file in found]

    def entry(self, name: str) -> dict:
        content = (self.folder / name).read_bytes()
        digest = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": name, "oid": digest, "size": len(content)}

    def handle_error(self, *_: object) -> None: ...


class HubAnswer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        names = json.loads(asked)["paths"] if asked.startswith("{") else re.findall(r"paths=([^&]*)", asked)
        wanted = [unquote(name) for name in names]
        there = [file for file in self.server.files() if file["path"] in wanted]
        folders = {file["path"].split("/")[0] for file in self.server.files() if "/" in file["path"]} & set(wanted)
        self._json(there + [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders])

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "v9" in path:
            self._json({"error": "Invalid rev id: v9"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/datasets/team/ore/tree/"):
            inside = path.removeprefix("/api/datasets/team/ore/tree/").partition("/")[2]
            self._tree(inside, "recursive=true" in self.path.lower())
        elif re.fullmatch(r"/api/datasets/team/ore(/revision/[^/]+)?", path):
            names = [{"rfilename": file["path"]} for file in self.server.files()]
            self._json({"id": "team/ore", "sha": COMMIT, "siblings": names, "private": False, "tags": []})
        elif path.startswith("/datasets/team/ore/resolve/"):
            self._file(path.removeprefix("/datasets/team/ore/resolve/").partition("/")[2])
        else:
            self._json({"error": "Repository Not Found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _tree(self, inside: str, recursive: bool) -> None:
        prefix = f"{inside}/" if inside else ""
        found: dict[str, dict] = {}
        for file in self.server.files():
            if not file["path"].startswith(prefix):
                continue
            head, deeper, _ = file["path"][len(prefix) :].partition("/")
            if deeper:
                folder = prefix + head
                found[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            if recursive or not deeper:
                found[file["path"]] = file
        self._json(list(found.values()), 200 if found else 404)

    def _file(self, name: str) -> None:
        if not (self.server.folder / name).is_file():
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        content = (self.server.folder / name).read_bytes()
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2] or len(content) - 1) + 1) if asked else (0, len(content))
        end = min(end, len(content))
        headers = {"ETag": f'"{self.server.entry(name)["oid"]}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._send(206 if asked else 200, headers, content[start:end], name, start)

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes, name: str = "", start: int = 0) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        breaks = bool(name) and not name.endswith(".md") and self.server.breaks > 0
        self.server.ranges += [(name, start)] if name else []
        self.wfile.write(body[:1000] if breaks else body)
        if breaks:
            self.server.breaks -= 1
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    import gzip

    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("hub")
    (folder / "README.md").write_text(CARD)
    (folder / "easy").mkdir()
    for part in range(2):
        table = pyarrow.Table.from_pylist([{"text": f"easy {part} {row}", "id": f"{part}-{row}"} for row in range(500)])
        pyarrow.parquet.write_table(table, folder / "easy" / f"train-{part:05d}-of-00002.parquet", row_group_size=100)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a test"]}), folder / "easy" / "test-00000-of-00001.parquet")
    (folder / "notes.jsonl").write_text('{"text": "a"}\nnot json\n{"text": "b"}\n')
    rows = [json.dumps({"body": f"hard {row}", "n": row * 7919 % 10007}) + "\n" for row in range(2000)]
    (folder / "hard.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode()))
    server = HubServer(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


READ = """
import json, sys
from smelt.corpus import remote
from smelt.corpus.readers import parts, read
from smelt.errors import InputError
from smelt.recipe.sections.readers import Reader
from pydantic import TypeAdapter
remote._FIRST_WAIT = 0.001
seen = []
for fields in json.loads(sys.argv[1]):
    bad, known = [], {} if "path" in fields else {"kind": "hub", "id": "team/ore"}
    reader = TypeAdapter(Reader).validate_python({**known, **fields})
    try:
        found = [(each.text, each.id) for each in read(reader, "web", 0, bad=bad.append)]
        seen.append([parts(reader), found, [(each.place, each.reason) for each in bad]])
    except InputError as error:
        seen.append(str(error))
print(json.dumps(seen))
"""


@pytest.fixture
def seen(hub: HubServer, tmp_path: Path):
    """What a process whose hub is that server reads."""

    def read(*readers: dict) -> list:
        address = f"http://127.0.0.1:{hub.server_port}"
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", READ, json.dumps(readers)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return read


def place(name: str) -> str:
    return f"hf://datasets/team/ore@{COMMIT}/{name}"


def test_the_files_of_a_split_are_read_where_they_are(hub: HubServer, seen) -> None:
    hub.breaks = 1
    easy, notes, hard, downloaded = seen(
        {"subset": "easy"},
        {"subset": "notes"},
        {"subset": "hard", "field": "body"},
        {"subset": "easy", "split": "test", "streaming": False},
    )
    assert easy[0] == [place(f"easy/train-{part:05d}-of-00002.parquet") for part in range(2)]
    assert easy[1:] == [[[f"easy {part} {row}", f"{part}-{row}"] for part in range(2) for row in range(500)], []]
    assert hub.breaks == 0
    assert notes[1] == [["a", place("notes.jsonl:1")], ["b", place("notes.jsonl:3")]]
    assert notes[2] == [[place("notes.jsonl:2"), "not valid JSON"]]
    assert [text for text, _ in hard[1]] == [f"hard {row}" for row in range(2000)]
    assert downloaded == [[""], [["a test", "team/ore/easy[test]:0"]], []]


def test_files_of_the_hub_can_be_named_by_their_url(seen) -> None:
    whole, inside = seen(
        {"kind": "jsonl", "path": "hf://datasets/team/ore/notes.jsonl"},
        {"kind": "parquet", "path": "hf://datasets/team/ore/easy"},
    )
    assert [text for text, _ in whole[1]] == ["a", "b"]
    assert [Path(name).name for name in inside[0]] == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert [text for text, _ in inside[1]][:2] == ["a test", "easy 0 0"] and len(inside[1]) == 1001


def test_what_the_hub_does_not_have_is_one_line(seen) -> None:
    lines = seen({"subset": "absent"}, {"subset": "easy", "split": "dev"}, {"subset": "easy", "revision": "v9"})
    assert all(isinstance(line, str) and "\n" not in line for line in lines)
    assert "absent" in lines[0] and "easy" in lines[0]
    assert "has no such split (splits there: train, test)" in lines[1]
    assert "revision" in lines[2]
