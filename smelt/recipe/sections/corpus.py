"""`corpus`: where documents come from, and which of them are kept for validation."""

from typing import Annotated, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class TextFiles(Section):
    """Plain text files, one document each; `path` may be a file, a folder or a glob; `.gz` and `.zst` are read too."""

    kind: Literal["text"]
    path: str


class JsonLines(Section):
    """JSON Lines, one document a line, plain, `.gz` or `.zst`; `path` may be a file, a folder or a glob."""

    kind: Literal["jsonl"]
    path: str
    field: str = "text"


class Parquet(Section):
    """Parquet files with a text column; `path` may be a file, a folder or a glob."""

    kind: Literal["parquet"]
    path: str
    field: str = "text"


class Hub(Section):
    """A dataset of the Hugging Face hub (or a local folder in its layout), read with `datasets`."""

    kind: Literal["hub"]
    id: str
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    field: str = "text"
    streaming: bool = True


class PythonDocs(Section):
    """Prose that comes with Python: the interpreter's help topics and the docstrings of its standard library."""

    kind: Literal["python-docs"]


class PythonSource(Section):
    """The source code of Python's standard library, a file a document."""

    kind: Literal["python-source"]


class Arithmetic(Section):
    """Generated word problems and sums with worked, checked answers; never uses a held-out pair of numbers."""

    kind: Literal["arithmetic"]
    documents: Count = 50_000


Reader = Annotated[
    TextFiles | JsonLines | Parquet | Hub | PythonDocs | PythonSource | Arithmetic, Field(discriminator="kind")
]


SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Source(Section):
    """One named source of documents; `documents` caps how many are read."""

    read: Reader
    documents: Count | None = None


class Corpus(Section):
    """All sources, and the share of each one's documents that is kept for validation (by a hash of the text)."""

    sources: dict[SourceName, Source] = Field(min_length=1)
    validation_fraction: float = Field(default=0.02, gt=0, lt=0.5)
