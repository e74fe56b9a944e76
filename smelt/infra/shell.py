"""Takes a shell script apart into its simple commands, as far as a check of what they delete needs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_KEYWORDS = {"if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "!", "{", "}"}
_SHELL = re.compile(r"(.*/)?((ba|da|z|k)?sh|xargs)")


@dataclass
class Command:
    """One simple command.

    `words` without their quotes; `emptied`: files that a `>` empties; `substituted`: scripts that run for their output;
    `given`: arguments and here documents that could be scripts too; `to_shell`: whether its output goes into a shell.
    """

    line: int
    text: str = ""
    words: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    substituted: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    to_shell: bool = False

    @property
    def name(self) -> str:
        """The program, without its folder."""
        return self.words[0].rsplit("/", 1)[-1] if self.words else ""


def commands(text: str) -> Iterator[Command]:
    """The simple commands of a script, in order, wherever they stand in loops, lists and pipes."""
    found = _Scanner(text).commands()
    for command, _ in found:
        while command.words and command.words[0] in _KEYWORDS:
            del command.words[0]
    for index, (command, end) in enumerate(found):
        if end in ("|", "|&") and index + 1 < len(found):
            command.to_shell = any(_SHELL.fullmatch(word) for word in found[index + 1][0].words[:3])
        if command.words or command.emptied:
            yield command


class _Scanner:
    """Walks over a script once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: list[tuple[Command, str]] = []
        self.command = Command(1)
        self.began = 0
        self.comment: int | None = None
        self.word: str | None = None
        self.redirection = ""
        self.documents: list[tuple[str, Command]] = []

    def commands(self) -> list[tuple[Command, str]]:
        """Each command and the operator that ends it."""
        while self.at < len(self.text):
            self._step()
        self._end_command("")
        return self.found

    def _step(self) -> None:
        char, pair = self.text[self.at], self.text[self.at : self.at + 2]
        if pair == "\\\n":
            self.at += 2
        elif char == "\\":
            self._add(pair[1:], 2)
        elif char == "'":
            end = self._find("'", self.at + 1)
            self._add(self.text[self.at + 1 : end], end + 1 - self.at)
        elif char == '"':
            self._double_quoted()
        elif pair in ("$(", "${", "<(", ">(") or char == "`":
            self._substitution()
        elif char in " \t\r":
            self._end_word()
            self.at += 1
        elif char == "#" and self.word is None:
            self.comment = self.at
            self.at = self._find("\n", self.at)
        elif char in "<>" or pair == "&>":
            self._redirect()
        elif char in ";&|()\n":
            self._operator()
        else:
            self._add(char, 1)

    def _add(self, text: str, length: int) -> None:
        if self.word is None:
            self.word = ""
            if not (self.command.words or self.redirection):
                self._begin()
        self.word += text
        self.at += length

    def _begin(self) -> None:
        self.began = self.at
        self.command.line = self.text.count("\n", 0, self.at) + 1

    def _double_quoted(self) -> None:
        self._add("", 1)
        while self.at < len(self.text) and self.text[self.at] != '"':
            pair = self.text[self.at : self.at + 2]
            if pair[0] == "\\":
                self._add(pair[1:] if pair[1:] in ('"', "\\", "$", "`") else pair.replace("\\\n", ""), 2)
            elif pair in ("$(", "${") or pair[0] == "`":
                self._substitution()
            else:
                self._add(pair[0], 1)
        self.at += 1

    def _substitution(self) -> None:
        """`$(...)`, `${...}`, `<(...)` and backquotes: kept in the word as they stand; scripts among them noted."""
        start = self.at
        if self.text[start] == "`":
            end = self._find("`", start + 1)
            self.command.substituted.append(self.text[start + 1 : end])
        else:
            end = self._closing(start + 1)
            if self.text[start + 1] == "(":
                self.command.substituted.append(self.text[start + 2 : end])
        self._add(self.text[start : end + 1], end + 1 - start)

    def _closing(self, start: int) -> int:
        """Where the bracket that opens at `start` is closed."""
        opening = self.text[start]
        closing, depth = {"(": ")", "{": "}"}[opening], 0
        for index in range(start, len(self.text)):
            depth += (self.text[index] == opening) - (self.text[index] == closing)
            if depth == 0:
                return index
        return len(self.text)

    def _redirect(self) -> None:
        if self.word is not None and self.word.isdigit():
            self.word = None  # a file descriptor
        self._end_word()
        if not self.command.words:
            self._begin()
        match = re.compile(r"&>>?|<<<|<<-?|<>|<&|<|>>|>\||>&|>").match(self.text, self.at)
        assert match is not None
        self.redirection = match[0]
        self.at = match.end()

    def _operator(self) -> None:
        match = re.compile(r";;|&&|\|\||\|&|[;&|()\n]").match(self.text, self.at)
        assert match is not None
        self._end_command(match[0])
        self.at = match.end()
        if match[0] == "\n":
            self._here_documents()

    def _here_documents(self) -> None:
        for delimiter, command in self.documents:
            end = re.compile(rf"^\t*{re.escape(delimiter)}$", re.MULTILINE).search(self.text, self.at)
            stop = end.start() if end else len(self.text)
            command.given.append(self.text[self.at : stop])
            self.at = end.end() if end else stop
        self.documents = []

    def _end_word(self) -> None:
        if self.word is None:
            return
        if not self.redirection:
            self.command.words.append(self.word)
            if self.command.words[1:] and re.search(r"\s", self.word):
                self.command.given.append(self.word)
        elif self.redirection.startswith("<<") and self.redirection != "<<<":
            self.documents.append((self.word, self.command))
        elif self.redirection == "<<<":
            self.command.given.append(self.word)
        elif self.redirection in (">", ">|", "&>"):
            self.command.emptied.append(self.word)
        self.word, self.redirection = None, ""

    def _end_command(self, operator: str) -> None:
        self._end_word()
        self.command.text = " ".join(self.text[self.began : self.comment or self.at].split())
        self.found.append((self.command, operator))
        self.command = Command(self.text.count("\n", 0, self.at) + 1)
        self.began, self.comment = self.at, None

    def _find(self, char: str, start: int) -> int:
        found = self.text.find(char, start)
        return len(self.text) if found < 0 else found
