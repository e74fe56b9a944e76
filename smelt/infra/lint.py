"""Finds what could delete checkpoints in launch scripts and in the scripts that they call, before anything is started.

A delete passes only when its target is written out and lies elsewhere: what cannot be told from the text is reported.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smelt.infra.shell import Command, commands

_TEMPORARY = re.compile(r"(/tmp|/var/tmp|/dev/shm|\$\{?(SLURM_)?TMPDIR\}?)/+[^/.]")
_CHECKPOINTS = re.compile(r"(^|[/\s:'\"])(checkpoints?|ckpts?|runs|step-[\d*?\[]\S*)([/\s'\"*]|$)", re.IGNORECASE)
_REMOVERS = {"rm", "rmdir", "unlink", "shred", "truncate", "srm", "wipe", "wipefs"}
_NOT_FILES = {"docker", "podman", "nerdctl"}  # whose `rm` removes containers
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "source", "."}
_SAYING = {"echo", "printf", "grep", "logger", ":"}
_PYTHON = re.compile(r"\brmtree\s*\(|\bos\.(remove|unlink|rmdir|removedirs)\s*\(|\.(unlink|rmdir)\s*\(")
# Tools that delete when one of these words follows their name.
_TOOLS = {
    "aws": {"rm", "rb", "delete-object", "delete-objects", "delete-bucket", "--delete"},
    "az": {"delete", "delete-batch", "remove"},
    "azcopy": {"remove", "rm", "--delete-destination"},
    "btrfs": {"delete"},
    "find": {"-delete", *_REMOVERS},
    "gcloud": {"rm", "delete", "--delete-unmatched-destination-objects"},
    "git": {"clean"},
    "gsutil": {"rm", "rb", "-d"},
    "hadoop": {"-rm", "-rmdir", "-expunge"},
    "hdfs": {"-rm", "-rmdir", "-expunge"},
    "mc": {"rm", "rb", "--remove"},
    "rclone": {"delete", "deletefile", "purge", "sync", "rmdir", "rmdirs", "move", "moveto"},
    "rsync": {"--delete", "--delete-before", "--delete-during", "--delete-after", "--delete-delay"}
    | {"--del", "--delete-excluded", "--remove-source-files"},
    "s3cmd": {"del", "rm", "rb", "--delete-removed"},
    "s5cmd": {"rm", "rb", "--delete"},
    "tar": {"--remove-files"},
    "zfs": {"destroy", "rollback"},
}


@dataclass(frozen=True)
class Finding:
    """A line (from 1) of a script that could delete checkpoints; `script` where it is not the one handed in."""

    line: int
    command: str
    reason: str
    script: str = ""

    def __str__(self) -> str:
        place = f"{self.script}, line {self.line}" if self.script else f"line {self.line}"
        return f"{place}: '{self.command}' {self.reason}"


@dataclass
class _Place:
    """What a script knows while it is read: where it stands, its variables, and what must not be deleted."""

    folder: Path
    protected: Sequence[str]
    script: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    seen: set[Path] = field(default_factory=set)


def lint_script(text: str, protected: Sequence[str | Path] = (), folder: Path = Path(".")) -> list[Finding]:
    """What in a shell script could delete checkpoints, in the order of its lines.

    `protected` are folders and remote addresses that hold some, `folder` is where the script starts. Scripts that it
    calls are read too.
    """
    kept = [str(path) if "://" in str(path) else os.path.normpath(folder.absolute() / path) for path in protected]
    return list(_read(text, _Place(folder.absolute(), kept)))


def _read(text: str, place: _Place, first: int = 1) -> Iterator[Finding]:
    for command in commands(text):
        line = first + command.line - 1
        _assign(command, place)
        reason = _reason(command, place)
        if reason:
            yield Finding(line, command.text, reason, place.script)
        else:
            for script in command.substituted + ([] if _only_says(command) else command.given):
                yield from _read(script, place, line)
        yield from _called(command, place)
        if command.name == "cd" and command.words[1:]:
            target = _resolved(command.words[1], place)
            # From a folder that is not known, `rm *` could reach anything.
            place.folder = Path("/") if "$" in target else place.folder / os.path.expanduser(target)


def _assign(command: Command, place: _Place) -> None:
    for word in command.words:
        match = re.fullmatch(r"(?s)([A-Za-z_]\w*)=(.*)", word)
        if match:
            place.variables[match[1]] = _resolved(match[2], place)
        elif word not in ("export", "local", "readonly", "declare"):
            break


def _only_says(command: Command) -> bool:
    return command.name in _SAYING and not command.to_shell


def _reason(command: Command, place: _Place) -> str:
    """Why a command is refused; empty when it may stay."""
    for path in command.emptied:
        if re.search(r"(^|/)(checkpoints?|step-\d+)/", _resolved(path, place)):
            return f"empties '{path}'; leave checkpoints to the run"
    if _only_says(command):
        return ""
    if _PYTHON.search(" ".join(command.words)) or any(map(_PYTHON.search, command.given)):
        return "deletes from Python; leave removal to train.checkpoints"
    for index, word in enumerate(command.words):
        name, rest = os.path.basename(word), command.words[index + 1 :]
        found = _TOOLS.get(name, set()).intersection(rest)
        if found:
            targets = {"find": rest[:1], "rsync": rest, "git": ["."]}.get(name, rest)
            return _judged([each for each in targets if each not in found], place, remote="://" in command.text)
        if name == "kubectl" and "delete" in rest and {"pvc", "pv", "namespace", "persistentvolumeclaim"} & set(rest):
            return "deletes the volume that holds the run; do that by hand"
        is_file_removal = name in _REMOVERS and (index == 0 or command.words[index - 1] not in _NOT_FILES)
        if is_file_removal or name.startswith("mkfs") or (name == "mv" and rest[-1:] == ["/dev/null"]):
            return _judged(rest, place)
    return ""


def _judged(targets: Sequence[str], place: _Place, remote: bool = False) -> str:
    """Why these targets of a delete are refused; empty when all of them are known and lie elsewhere."""
    paths = [_resolved(word, place) for word in targets if not word.startswith("-")]
    if remote:
        paths = [path for path in paths if "://" in path or "$" in path]
    if not paths:
        return "deletes what this script does not name"
    for path in paths:
        if _TEMPORARY.match(path) and ".." not in path and not _CHECKPOINTS.search(path):
            continue
        if "$" in path or "`" in path:
            return f"deletes '{path}', which could be a folder of checkpoints; write the path out"
        if _CHECKPOINTS.search(path):
            return f"deletes '{path}', which looks like checkpoints; leave that to train.checkpoints"
        if remote and not any("://" in kept for kept in place.protected):
            return f"deletes '{path}', which could hold uploaded checkpoints; leave that to train.checkpoints"
        for kept in place.protected:
            if _overlap(path, kept, place.folder):
                return f"deletes '{path}', where {kept} lies; leave removal to train.checkpoints"
    return ""


def _overlap(path: str, kept: str, folder: Path) -> bool:
    """Whether deleting `path`, which may hold wildcards, could touch `kept` or something in it."""
    if ("://" in path) != ("://" in kept):
        return False
    steady = re.split(r"[*?\[{]", path, maxsplit=1)[0]
    if "://" in path:
        return kept.startswith(steady.rstrip("/")) or steady.startswith(kept.rstrip("/"))
    absolute = os.path.normpath(folder / os.path.expanduser(steady))
    if steady != path and not steady.endswith("/") and steady:
        # `demo*` reaches all names beside it that begin so.
        return kept.startswith(absolute) or Path(absolute).parent.is_relative_to(kept)
    return Path(kept).is_relative_to(absolute) or Path(absolute).is_relative_to(kept)


def _resolved(word: str, place: _Place) -> str:
    """A word with the variables that the script itself has set."""

    def value(match: re.Match[str]) -> str:
        return place.variables.get(match[1] or match[2], match[0])

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, word)


def _called(command: Command, place: _Place) -> Iterator[Finding]:
    """What the scripts that a command runs delete, where they can be read."""
    for index, word in enumerate(command.words):
        if os.path.basename(word) in _SHELLS:
            candidates = [each for each in command.words[index + 1 :] if not each.startswith("-")][:1]
        else:
            candidates = [word] if index == 0 and "/" in word else []
        for candidate in candidates:
            file = Path(os.path.normpath(place.folder / os.path.expanduser(_resolved(candidate, place))))
            if file in place.seen or not file.is_file():
                continue
            place.seen.add(file)
            content = file.read_bytes()
            if b"\0" not in content[:4096]:
                inner = _Place(place.folder, place.protected, str(file), dict(place.variables), place.seen)
                yield from _read(content.decode(errors="replace"), inner)
