"""The sources that come with Python."""

import sys

import pytest

from smelt.corpus.readers import read
from smelt.errors import InputError
from smelt.recipe.sections.readers import PythonDocs, PythonSource


def test_docs_hold_topics_and_docstrings_without_importing_modules() -> None:
    before = set(sys.modules)
    found = {each.id: each.text for each in read(PythonDocs(kind="python-docs"), "docs", 0)}
    assert not {"this", "antigravity", "turtle"} & (set(sys.modules) - before)
    assert 'The "assert" statement' in found["topic:assert"]
    text = found["docstrings:textwrap"]
    assert text.startswith("Module textwrap\n\nText wrapping and filling.")
    assert "Class textwrap.TextWrapper" in text and "textwrap.TextWrapper.wrap(self, text)" in text
    assert "TextWrapper._wrap_chunks" not in text
    assert sum(map(len, found.values())) > 1_000_000
    assert not any(":class:`" in text for text in found.values())


def test_source_is_the_library_without_tests_and_tables_in_a_fixed_order() -> None:
    found = list(read(PythonSource(kind="python-source"), "code", 0))
    names = [each.id for each in found]
    assert names == sorted(names) and names == [each.id for each in read(PythonSource(kind="python-source"), "code", 0)]
    assert {"argparse.py", "json/decoder.py"} <= set(names)
    skipped = ("test/", "site-packages/", "idlelib/", "encodings/", "lib2to3/", "pydoc_data/")
    assert not [name for name in names if "__pycache__" in name or name.startswith(skipped) or "/test/" in name]
    assert sum(len(each.text) for each in found) > 4_000_000


def test_a_python_without_its_topics_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(InputError, match=r"pydoc_data\.topics: not found; .* use a full CPython"):
        list(read(PythonDocs(kind="python-docs"), "docs", 0))


def test_a_python_without_its_library_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match="source of the standard library is not there"):
        list(read(PythonSource(kind="python-source"), "code", 0))
