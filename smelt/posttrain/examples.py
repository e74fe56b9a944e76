"""Conversations -> token ids with a mask of what the assistant says, cut to length, counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smelt.errors import InputError
from smelt.posttrain.instructions import Row

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation, the ids of its text, and 1 for each id that belongs to the assistant (its end of turn too)."""

    messages: list[dict[str, str]]
    ids: list[int]
    mask: list[int]


def encode(rows: Sequence[Row], tokenizer: Any, max_length: int) -> tuple[list[Example], dict[str, Any]]:
    """The examples that can be learnt from, and statistics of the data set.

    `tokenizer` is transformers' own, with its chat template. A conversation longer than `max_length` ids loses its
    end, and is dropped when nothing of the assistant is left. InputError when that befalls all of them.
    """
    examples = [example for first in range(0, len(rows), _ROWS_AT_ONCE) for example in _encoded(rows, first, tokenizer)]
    kept = [example for example in examples if any(example.mask[:max_length])]
    if not kept:
        raise InputError(
            f"max_length ({max_length}) cuts off every answer of the {len(rows)} conversations; raise it in this stage"
        )
    lengths = [min(len(example.ids), max_length) for example in kept]
    return kept, {
        "examples": len(kept),
        "dropped": len(examples) - len(kept),
        "truncated": sum(len(example.ids) > max_length for example in kept),
        "tokens": sum(lengths),
        "assistant_tokens": sum(sum(example.mask[:max_length]) for example in kept),
        "longest": max(lengths),
        "turns": sum(len(example.messages) for example in kept),
    }


def _encoded(rows: Sequence[Row], first: int, tokenizer: Any) -> list[Example]:
    messages = [row["messages"] for row in rows[first : first + _ROWS_AT_ONCE]]
    found = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return [Example(*each) for each in zip(messages, found["input_ids"], found["assistant_masks"], strict=True)]
