"""`corpus.sources.NAME.read`: where documents come from."""

from typing import Annotated, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class _Files(Section):
    """`path` is a file, a folder or a glob, here or behind a URL (`s3://`, `gs://`, `hf://`, `https://`); `.gz` and
    `.zst` are unpacked. A row (or file) of more than `max_bytes` is bad."""

    path: str
    max_bytes: Count = 64 * 2**20


class TextFiles(_Files):
    """Plain text files, one document each."""

    kind: Literal["text"]


class JsonLines(_Files):
    """JSON Lines, one document a line, its text in `field`, its name in `id_field` (null: by file and line)."""

    kind: Literal["jsonl"]
    field: str = "text"
    id_field: str | None = "id"


class Parquet(_Files):
    """Parquet files, one document a row, its text in `field`, its name in `id_field` (null: by file and row)."""

    kind: Literal["parquet"]
    field: str = "text"
    id_field: str | None = "id"


class Chat(_Files):
    """JSON Lines of conversations, `field` a list of messages, as text in which a role is a plain word: `User: ...`."""

    kind: Literal["chat"]
    field: str = "messages"
    id_field: str | None = "id"


class Html(_Files):
    """HTML files, one document each: the main text of the page, extracted by trafilatura.

    `favor` precision where doubtful passages are to be left out, recall where they are to be kept.
    """

    kind: Literal["html"]
    favor: Literal["precision", "balance", "recall"] = "precision"
    max_bytes: Count = 5 * 2**20


class Warc(_Files):
    """Web archives (WARC, or WET, which has text already): each page that was served whole as HTML or plain text."""

    kind: Literal["warc"]
    favor: Literal["precision", "balance", "recall"] = "precision"
    max_bytes: Count = 5 * 2**20


class Code(_Files):
    """A folder of repositories: each source file one document, its language known by its name.

    Left out, and counted: binary files, files beyond `max_bytes` or with a line of more than `max_line` characters,
    and unless they are wanted those that are `generated` or that came from elsewhere (`vendored`). `languages` keeps
    these alone.
    """

    kind: Literal["code"]
    languages: tuple[str, ...] | None = None
    generated: bool = False
    vendored: bool = False
    max_line: Count = 1000
    max_bytes: Count = 2**20


class Hub(Section):
    """A dataset of the Hugging Face hub (or a local folder in its layout).

    `streaming` reads its files where they are (Parquet and JSON Lines a file at a time, like those readers; other
    formats with `datasets`); otherwise `datasets` downloads it whole first.
    """

    kind: Literal["hub"]
    id: str
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    field: str = "text"
    id_field: str | None = "id"
    max_bytes: Count = 64 * 2**20
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
    TextFiles | JsonLines | Parquet | Chat | Html | Warc | Code | Hub | PythonDocs | PythonSource | Arithmetic,
    Field(discriminator="kind"),
]
