"""What every reader yields and every later room reads: one text with a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """`id` is unique within `source` as far as the reader can tell; `text` may be empty; `facts` are what a reader
    knows besides (`url`, `path`, `language`), JSON-serialisable."""

    text: str
    id: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)
