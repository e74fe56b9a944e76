"""`corpus.sources.NAME.filter`: filters that ask a model, or a function of the user's."""

import importlib.metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from smelt.errors import InputError
from smelt.files import MANIFEST, sha256
from smelt.recipe.parts.custom import imported, source_hash
from smelt.recipe.sections.filters import Filter


class Language(Filter):
    """Keeps documents in one of `keep` (codes such as `en`, ISO 639-1 with the bundled model) whose language is known
    with a probability of at least `min_score`.

    `model` is a file in fastText's format (lid.176.bin and its kin), otherwise py3langid's own model judges.
    """

    kind: Literal["language"]
    keep: tuple[str, ...] = Field(min_length=1)
    min_score: float = Field(default=0.65, ge=0, le=1)
    model: str | None = None

    def scoring(self) -> dict[str, Any]:
        """What its scores depend on: the bytes of the model's file, or the version of the bundled one."""
        if self.model is not None:
            return {"kind": self.kind, "model": sha256(model_file(self.model))}
        try:
            return {"kind": self.kind, "model": f"py3langid {importlib.metadata.version('py3langid')}"}
        except importlib.metadata.PackageNotFoundError:
            raise InputError("language filter: py3langid is not installed; pip install 'smelt[data]'") from None


class Classifier(Filter):
    """Keeps documents that a model of `smelt corpus classifier` (its folder) gives a score within the limits."""

    kind: Literal["classifier"]
    model: str
    min_score: float | None = None
    max_score: float | None = None

    @model_validator(mode="after")
    def _a_limit(self) -> "Classifier":
        if self.min_score is None and self.max_score is None:
            raise ValueError("min_score or max_score is required; without one nothing is dropped")
        return self

    def scoring(self) -> dict[str, Any]:
        """What its scores depend on: the model's manifest, which holds the hash of each of its files."""
        return {"kind": self.kind, "model": sha256(model_file(self.model, MANIFEST))}


class Predicate(Filter):
    """Keeps documents for which a function of the user's, `module:function`, says yes.

    It takes a `smelt.corpus.document.Document` and returns a bool, or a number of which `min_score` or more is a yes.
    `source` is the sha256, shortened, of its file: it is filled in when the recipe is read, and a frozen recipe's
    function is taken from the same file only.
    """

    measures: ClassVar[tuple[str, ...]] = ("function", "source")

    kind: Literal["predicate"]
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    min_score: float = 1.0
    source: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_source(cls, fields: Any) -> Any:
        """`fields`, the hash of the function's file added where it is not frozen yet."""
        name = fields.get("function") if isinstance(fields, dict) else None
        if not isinstance(name, str) or ":" not in name or fields.get("source"):
            return fields
        module, _, function = name.partition(":")
        found = imported(name, module, "function")
        if not callable(getattr(found, function, None)):
            raise ValueError(f"function '{name}': {found.__file__} has no function '{function}'; check the name")
        return {**fields, "source": source_hash(found)}


def model_file(path: str, name: str = "") -> Path:
    """A model's file, `~` in its path expanded; InputError where there is none."""
    file = Path(path).expanduser() / name
    if not file.is_file():
        made = "smelt corpus classifier makes one" if name else "nothing is fetched: put the file there"
        raise InputError(f"{file}: no such model; {made}, or correct 'model'")
    return file


JudgeFilter = Language | Classifier | Predicate
