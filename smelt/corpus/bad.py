"""Input that cannot be read: what is kept of it, and the choice between stopping there and going on without it."""

from collections.abc import Callable
from dataclasses import dataclass

from smelt.errors import InputError

_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class Bad:
    """One row, or one file, that gave no document.

    `place` is the file, with line or row; `reason` is the same for all of its sort, so that they can be counted;
    `excerpt` shows the beginning of it. `rows` is what it weighs in a source's share of bad rows: more than one where
    a part of a file is lost, 0 for what a reader leaves out by a rule of the recipe.
    """

    place: str
    reason: str
    excerpt: str = ""
    rows: int = 1


Report = Callable[[Bad], None]


class Unreadable(InputError):
    """A bad row or file as an error, with its mend; `bad` is what is kept of it where reading goes on.

    `left` is how much of a file was not read, as a multiple of what was.
    """

    left = 0.0

    def __init__(
        self, place: str, reason: str, mend: str, *, detail: str = "", excerpt: bytes | str = "", rows: int = 1
    ) -> None:
        detail = " ".join(detail.split())
        self._mend, self._detail = mend, detail
        super().__init__(written(f"{place}: {reason}{f' ({detail})' if detail else ''}; {mend}"))
        text = excerpt if isinstance(excerpt, str) else excerpt[: 4 * _EXCERPT].decode("utf-8", "backslashreplace")
        self.bad = Bad(written(place), written(reason), written(text[:_EXCERPT]), rows)

    def at(self, place: str, rows: int) -> "Unreadable":
        """The same error, its place and what it costs known better."""
        return Unreadable(place, self.bad.reason, self._mend, detail=self._detail, excerpt=self.bad.excerpt, rows=rows)


def written(name: str) -> str:
    """A name that can be written as UTF-8: half characters, of a file's name or of JSON, become `\\udc80`."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def report(error: Unreadable, bad: Report | None) -> None:
    """Hand a bad row to `bad`; without one it is raised, unless it was left out by a rule."""
    if bad is not None:
        bad(error.bad)
    elif error.bad.rows:
        raise error
