"""What every reader yields and every later room reads: one text with a name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """`id` is unique within `source` as far as the reader can tell; `text` may be empty."""

    text: str
    id: str
    source: str
