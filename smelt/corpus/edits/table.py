"""One table from an edit's kind to the function that makes it from its section of the recipe."""

from collections.abc import Callable
from typing import Any

from smelt.corpus.edits import c4_lines, personal
from smelt.corpus.edits.edit import Edit

EDITS: dict[str, Callable[[Any], Edit]] = {
    "c4-lines": c4_lines.c4_lines,
    "pii": personal.personal_data,
}
