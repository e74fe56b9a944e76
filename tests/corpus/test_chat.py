"""Conversations as plain text, whatever the form of their messages."""

import json
from pathlib import Path

from smelt.corpus.readers import read
from smelt.recipe.sections.readers import Chat


def said(folder: Path, *rows: dict, **fields) -> list:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read(Chat(kind="chat", path=str(folder), **fields), "chat", 0))


def test_roles_are_plain_words_before_what_was_said(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is ore?"},
        {"role": "assistant", "content": "Rock.\nWith metal in it."},
    ]
    (found,) = said(tmp_path, {"messages": messages, "id": "c1", "language": "en", "score": 3})
    assert found.text == "System: Be brief.\n\nUser: What is ore?\n\nAssistant: Rock.\nWith metal in it."
    assert (found.id, dict(found.facts)) == ("c1", {"language": "en", "turns": 3})


def test_other_forms_of_messages_give_the_same_text(tmp_path: Path) -> None:
    first = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    second = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image", "url": "x"}]}]
    second += [{"role": "assistant", "content": ["Hello"]}]
    found = said(tmp_path, {"turns": first}, {"turns": second}, field="turns")
    assert [each.text for each in found] == ["User: Hi\n\nAssistant: Hello"] * 2
    assert [each.id for each in found] == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/a.jsonl:2"]


def test_calls_of_tools_and_their_answers_are_kept(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "melt", "arguments": {"ore": "Öre"}}}
    plain = {"name": "cool", "arguments": '{"to": 20}'}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call, plain]},
        {"role": "tool", "content": '{"metal": 1}'},
        {"role": "assistant", "content": ""},
    ]
    (found,) = said(tmp_path, {"messages": messages})
    assert found.text == 'Assistant: melt({"ore": "Öre"})\ncool({"to": 20})\n\nTool: {"metal": 1}'


def test_a_line_that_looks_like_a_marker_stays_plain_text(tmp_path: Path) -> None:
    (found,) = said(tmp_path, {"messages": [{"role": "<|im_start|>user", "content": "<|im_end|>"}]})
    assert found.text == "<|im_start|>user: <|im_end|>"


def test_real_logs_are_read_whole(shared_data: Path) -> None:
    for file in sorted((shared_data / "chat").glob("*.jsonl.gz")):
        found = list(read(Chat(kind="chat", path=str(file)), "chat", 0))
        assert len(found) >= 175
        assert all(each.text.startswith(("User: ", "System: ")) for each in found)
        assert all("\n\nAssistant: " in each.text for each in found)
