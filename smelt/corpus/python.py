"""Documents that come with every Python: help topics and docstrings as prose, the standard library as code."""

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from smelt.corpus.document import Document
from smelt.errors import InputError

_MEND = "this Python comes without it; use a full CPython, or read 'text' or 'jsonl' files instead"
_SKIPPED_FOLDERS = frozenset(
    ("__pycache__", "encodings", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages", "test", "tests")
)
_SKIPPED_FILES = ("_sysconfigdata", "_sysconfig_vars", "sitecustomize", "usercustomize")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_ROLE = re.compile(r":[\w:+-]+:`[~!]?([^`<]+?)(?:\s*<[^`]*>)?`")


def read_docs(source: str) -> Iterator[Document]:
    """The interpreter's help topics, then each standard module's docstrings joined into one document."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InputError(f"pydoc_data.topics: not found; {_MEND}") from None
    for name in sorted(topics):
        yield Document(_plain(topics[name]), f"topic:{name}", source)
    for name, text in _modules():
        prose = _docstrings(name, text)
        if prose:
            yield Document(prose, f"docstrings:{name}", source)


def read_source(source: str) -> Iterator[Document]:
    """Each file of the standard library that is not a test, a table or generated for this machine."""
    root = _root()
    for file in _files(root):
        text = _decoded(file)
        if text is not None:
            yield Document(text, file.relative_to(root).as_posix(), source)


def _root() -> Path:
    root = Path(sysconfig.get_path("stdlib"))
    if not (root / "argparse.py").is_file():
        raise InputError(f"{root}: the source of the standard library is not there; {_MEND}")
    return root


def _files(root: Path) -> list[Path]:
    found = [(file.relative_to(root), file) for file in root.rglob("*.py")]
    return [file for name, file in sorted(found, key=lambda pair: pair[0].as_posix()) if _kept(name)]


def _kept(name: Path) -> bool:
    folders = name.parts[:-1]
    skipped = any(part in _SKIPPED_FOLDERS or part.startswith(("config-", ".")) for part in folders)
    return not skipped and not name.name.startswith(_SKIPPED_FILES)


def _decoded(file: Path) -> str | None:
    try:
        return file.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None


def _modules() -> Iterator[tuple[str, str]]:
    """Dotted name and source of each module."""
    root = _root()
    for file in _files(root):
        text = _decoded(file)
        if text is not None:
            parts = file.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), text


def _docstrings(module: str, text: str) -> str:
    """Docstrings of the module, its classes and its public functions, each under its qualified name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ""
    return "\n\n".join(_sections(tree, module))


def _sections(node: _Documented, name: str) -> Iterator[str]:
    prose = ast.get_docstring(node)
    if prose:
        yield f"{_heading(node, name)}\n\n{_plain(prose)}"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
            yield from _sections(inner, f"{name}.{inner.name}")


def _heading(node: _Documented, name: str) -> str:
    if isinstance(node, ast.Module):
        return f"Module {name}"
    if isinstance(node, ast.ClassDef):
        return f"Class {name}"
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return f"{name}({', '.join(names)})"


def _plain(prose: str) -> str:
    """Sphinx roles and double backticks reduced to the words they mark."""
    return _ROLE.sub(r"\1", prose).replace("``", "`").strip()
