"""The corpus pipeline finds the junk that was planted, and leaves what was clean."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "studies" / "planted_junk.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("planted_junk", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(data: Path, out: Path, most: int | None = None) -> dict[str, Any]:
    study = load()
    return {row["kind"]: row for row in study.study(data, out, most, ("corpus.executor={kind: local, workers: 1}",))}


def test_planted_junk_goes_and_clean_text_stays(shared_data: Path, tmp_path: Path) -> None:
    """DATA-14: of a few documents of each file. Of these the books that share sections are more than of all."""
    rows = found(shared_data, tmp_path, 30)
    for kind in ("exact copies", "benchmark items", "repeated spans", "repeated lines"):
        assert rows[kind]["gone"] == 1, rows[kind]
    for kind in ("near copies", "boilerplate", "mojibake", "another language"):
        assert rows[kind]["gone"] >= 0.9, rows[kind]
    assert rows["clean, kept"]["gone"] >= 0.97


@pytest.mark.slow
def test_every_goal_is_met_on_all_of_the_data(shared_data: Path, tmp_path: Path) -> None:
    """Every planted benchmark item and exact copy gone, less than 1 % of the clean documents lost."""
    for row in found(shared_data, tmp_path).values():
        assert row["gone"] >= row["goal"], row


def test_a_planted_document_that_is_kept_is_counted(shared_data: Path, tmp_path: Path) -> None:
    """Without decontamination the questions stay: what the study says depends on what was done."""
    study = load()
    off = ("corpus.executor={kind: local, workers: 1}", "corpus.decontaminate=null", "corpus.dedup=[]")
    rows = {row["kind"]: row for row in study.study(shared_data, tmp_path, 20, off)}
    assert rows["benchmark items"]["gone"] < 0.9
    assert rows["exact copies"]["gone"] < 0.5
