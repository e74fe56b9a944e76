"""The line rules of C4 (Raffel et al. 2020, section 2.2, and its published code): lines that end as sentences do stay,
menus, scripts and notices go."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from smelt.corpus.edits.edit import Edit
from smelt.corpus.filters.characters import encode
from smelt.corpus.filters.measured import tell_of_missing
from smelt.corpus.proven import Proven
from smelt.recipe.sections.edits import C4Lines

LONG_WORD, UNPUNCTUATED, SHORT, JAVASCRIPT, POLICY = REASONS = (
    "lines with a long word",
    "lines without closing punctuation",
    "short lines",
    "lines about JavaScript",
    "lines about cookies or terms of use",
)
CITATIONS = "citations"
CLOSING = (".", "?", "!", '"', "'")
ELLIPSIS = "..."
CONDEMNED, SCRIPT = "lorem ipsum", "javascript"
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")

Edited = tuple[str, Mapping[str, int]]


def c4_lines(section: C4Lines) -> Edit:
    def plain(texts: Sequence[str]) -> list[Edited]:
        return [edit(text, section) for text in texts]

    proven = Proven(section.kind, plain, compiled(section))
    return lambda text: proven([text])[0]


def edit(text: str, section: C4Lines) -> Edited:
    """The lines that stay, without white space around them, and how many went for what; blank ones are not counted."""
    kept: list[str] = []
    changes: Counter[str] = Counter()
    for line in text.splitlines():
        _judge(line.strip(), section, kept, changes)
    return "\n".join(kept).strip(), dict(changes)


def _judge(line: str, section: C4Lines, kept: list[str], changes: Counter[str]) -> None:
    words, citations = line.split(), 0
    if section.citations:
        line, citations = _CITATION.subn("", line)
    reason = _reason(line, words, section)
    if reason is None:
        kept.append(line)
        if citations:
            changes[CITATIONS] += citations
    elif words:
        changes[reason] += 1


def _reason(line: str, words: Sequence[str], section: C4Lines) -> str | None:
    """Why a line goes; `words` are those before citations were cut out."""
    if section.max_word_length is not None and any(len(word) > section.max_word_length for word in words):
        return LONG_WORD
    if section.punctuation and (not line.endswith(CLOSING) or line.endswith(ELLIPSIS)):
        return UNPUNCTUATED
    if len(words) < section.min_words:
        return SHORT
    lower = line.lower()
    if CONDEMNED in lower:
        return None
    if section.javascript and SCRIPT in lower:
        return JAVASCRIPT
    if "{" not in line and section.policy and any(policy in lower for policy in POLICIES):
        return POLICY
    return None


def compiled(section: C4Lines) -> Callable[[Sequence[str]], list[Edited]] | None:
    """`edit` for many texts, None where numba is missing."""
    try:
        from smelt.corpus.edits.c4_compiled import segments
    except ImportError as error:
        tell_of_missing(error)
        return None

    def fast(text: str) -> Edited:
        starts, ends, ask, dropped = segments(encode([text]).codes, section)
        changes = Counter({reason: count for reason, count in zip(REASONS, dropped, strict=True) if count})
        kept: list[str] = []
        for start, end, unsure in zip(starts, ends, ask, strict=True):
            if unsure:  # it may hold a citation
                _judge(text[start:end], section, kept, changes)
            else:
                kept.append(text[start:end])
        return "\n".join(kept).strip(), dict(changes)

    return lambda texts: [fast(text) for text in texts]
