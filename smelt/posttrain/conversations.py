"""Conversations to learn from: generated, or read from JSON Lines in the `messages` form."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smelt.corpus.files import matching
from smelt.corpus.streams import lines
from smelt.errors import InputError
from smelt.files import stamp
from smelt.posttrain.instructions import Row, instructions
from smelt.recipe.sections.posttrain import ChatData

ROLES = ("system", "user", "assistant", "tool")


def conversations(data: ChatData, seed: int) -> list[Row]:
    """The rows {"messages": [{"role", "content"}]} of a stage's data; InputError when there is none."""
    if data.kind == "instructions":
        return instructions(seed, data.examples)
    rows = list(read_conversations(data.path))
    if not rows:
        raise InputError(f"{data.path}: holds no conversation; add lines in the messages form")
    return rows


def conversations_inputs(data: ChatData) -> list[Any]:
    """The files that a stage's data comes from, as stamps for a fingerprint; none where it is generated."""
    return [] if data.kind == "instructions" else [stamp(file) for file in matching(data.path, "jsonl")]


def read_conversations(path: str) -> Iterator[Row]:
    """Rows of JSON Lines files (a file, a folder or a glob; plain, `.gz`, `.zst`), keys other than `messages` left out.

    Raises InputError naming file and line for a row that is not a conversation with an assistant's turn.
    """
    for file in matching(path, "jsonl"):
        for number, line in lines(file):
            yield {"messages": _messages(line, file, number)}


def _messages(line: bytes, file: Path, number: int) -> list[dict[str, str]]:
    place = f"{file}:{number}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON ({error}); mend or remove this line") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        there = ", ".join(row) if isinstance(row, dict) and row else "none"
        raise InputError(
            f'{place}: has no messages (fields there: {there}); give {{"messages": [{{"role", "content"}}, ...]}}'
        )
    cleaned = [_message(message, f"{place}: messages[{index}]") for index, message in enumerate(messages)]
    if not any(message["role"] == "assistant" for message in cleaned):
        raise InputError(f"{place}: no turn of the assistant, so there is nothing to learn; add one or remove the row")
    return cleaned


def _message(message: Any, place: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise InputError(f'{place}: not a message; give {{"role": ..., "content": ...}}')
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise InputError(f"{place}: role {json.dumps(role)} is unknown; use one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise InputError(f"{place}: content is {type(content).__name__}, not text; give the text of the message")
    return {"role": role, "content": content}
