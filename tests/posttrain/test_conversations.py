"""Conversations in files are read whole, and a bad line is named."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from smelt.errors import InputError
from smelt.posttrain.conversations import conversations, read_conversations
from smelt.recipe.sections.posttrain import ChatFiles

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "id": 3}


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_plain_and_compressed_files_are_read(tmp_path: Path, suffix: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    (tmp_path / f"chat.jsonl{suffix}").write_bytes(pack(f"{json.dumps(GOOD)}\n".encode() * 3))
    rows = conversations(ChatFiles(kind="jsonl", path=str(tmp_path / "*.jsonl*")), seed=0)
    assert rows == [{"messages": GOOD["messages"]}] * 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Hi"}, r"chat\.jsonl:2: has no messages \(fields there: text\)"),
        ({"messages": []}, r"chat\.jsonl:2: has no messages"),
        ([1], r"chat\.jsonl:2: has no messages"),
        ({"messages": ["Hi"]}, r"chat\.jsonl:2: messages\[0\]: not a message"),
        ({"messages": [{"role": "human", "content": "Hi"}]}, r'role "human" is unknown; use one of system, user'),
        ({"messages": [{"content": "Hi"}]}, r"role null is unknown"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\]: content is NoneType"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, r"chat\.jsonl:2: no turn of the assistant"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, message: str) -> None:
    (tmp_path / "chat.jsonl").write_text(f"{json.dumps(GOOD)}\n{json.dumps(row)}\n")
    with pytest.raises(InputError, match=message):
        list(read_conversations(str(tmp_path / "chat.jsonl")))


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"chat\.jsonl:1: not valid JSON"):
        list(read_conversations(str(tmp_path / "chat.jsonl")))


def test_a_file_without_conversations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no conversation"):
        conversations(ChatFiles(kind="jsonl", path=str(tmp_path / "chat.jsonl")), seed=0)
