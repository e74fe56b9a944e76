"""Documents from logs of conversations: the messages as plain text, whatever the template a model will see later."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from smelt.corpus.bad import Report, Unreadable
from smelt.corpus.document import Document
from smelt.corpus.rows import check_field, facts, identity, json_row, numbered, sound
from smelt.recipe.sections.readers import Chat

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_MEND = 'give {"role": ..., "content": ...}'


def read_chat(reader: Chat, source: str, part: str, bad: Report | None) -> Iterator[Document]:
    """Each conversation one document, its messages `Role: content` with a blank line between; fact `turns` counts them.

    Messages are {"role", "content"} or {"from", "value"}; content may be a list of parts, of which the text is kept. A
    tool call is written as its name and arguments.
    """

    def made(place: str, line: bytes) -> Document:
        row = json_row(place, line)
        check_field(reader.field, row, place)
        messages = row[reader.field]
        if not isinstance(messages, list) or not messages:
            raise Unreadable(place, f"field '{reader.field}' is no list of messages", _MEND, excerpt=line)
        texts = [_said(message, place, index) for index, message in enumerate(messages)]
        text = "\n\n".join(filter(None, texts))
        return Document(text, identity(row, reader.id_field, place), source, {**facts(row), "turns": len(texts)})

    return sound(numbered(part, reader.max_bytes, bad), made, bad)


def _said(message: Any, place: str, index: int) -> str:
    """`Role: content`; nothing for a message that says nothing."""
    if not isinstance(message, dict):
        raise Unreadable(place, "a message is no object", _MEND, detail=f"messages[{index}]", excerpt=str(message))
    role = message.get("role", message.get("from"))
    if not isinstance(role, str) or not role.strip():
        raise Unreadable(place, "a message has no role", _MEND, detail=f"messages[{index}]", excerpt=str(message))
    said = [_content(message.get("content", message.get("value")), place, index), *_calls(message)]
    text = "\n".join(filter(None, said))
    role = _ROLES.get(role.strip().lower(), role.strip())
    return f"{role[0].upper()}{role[1:]}: {text}" if text else ""


def _content(content: Any, place: str, index: int) -> str:
    if content is None:
        return ""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "\n".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        reason = f"a message's content is {type(content).__name__}, not text"
        raise Unreadable(place, reason, _MEND, detail=f"messages[{index}]", excerpt=str(content))
    return content


def _calls(message: Mapping[str, Any]) -> Iterator[str]:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            arguments = function.get("arguments", {})
            written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            yield f"{function['name']}({written})"
