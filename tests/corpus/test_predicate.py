"""Predicates: a function of the user's as a filter, hashed with the recipe."""

import textwrap
from pathlib import Path

import pytest

from smelt.corpus.document import Document
from smelt.corpus.filters.table import FILTERS, reasons
from smelt.errors import InputError
from smelt.recipe.load import load_recipe
from smelt.recipe.sections.judges import Predicate

CODE = """
    def short(document):
        return len(document.text) < 10

    def words(document):
        return len(document.text.split())

    def broken(document):
        return document.text[99]

    def nothing(document):
        return float("nan")
"""
DOCUMENTS = [Document("one two", "a", "web"), Document("one two three four", "b", "web")]


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of functions in the current folder, under a name of its own."""
    path = tmp_path / f"rules_{abs(hash(tmp_path))}.py"
    path.write_text(textwrap.dedent(CODE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def section(rules: Path, name: str, **fields: object) -> Predicate:
    return Predicate.model_validate({"kind": "predicate", "function": f"{rules.stem}:{name}", **fields})


def test_a_function_that_says_no_drops_the_document(rules: Path) -> None:
    chosen = section(rules, "short")
    scores = FILTERS["predicate"](chosen).score(DOCUMENTS)
    assert {name: mask.tolist() for name, mask in reasons(chosen, scores).items()} == {"not short": [False, True]}


def test_a_number_is_compared_with_a_threshold_that_needs_no_new_scores(rules: Path) -> None:
    few, many = section(rules, "words", min_score=2), section(rules, "words", min_score=3)
    assert few.scoring() == many.scoring()
    scores = FILTERS["predicate"](few).score(DOCUMENTS)
    assert [mask.tolist() for mask in reasons(many, scores).values()] == [[True, False]]


def test_a_changed_file_changes_what_the_scores_depend_on(rules: Path) -> None:
    before = section(rules, "short")
    rules.write_text(rules.read_text().replace("< 10", "< 100"))
    after = section(rules, "short")
    assert before.scoring() != after.scoring()
    assert FILTERS["predicate"](after).score(DOCUMENTS)["score"].tolist() == [1, 1]
    with pytest.raises(InputError, match="has changed since this recipe was frozen"):
        FILTERS["predicate"](before)


def test_a_function_that_fails_names_itself_and_the_document(rules: Path) -> None:
    with pytest.raises(
        InputError, match=rf"{rules.stem}:broken': failed on document 'a'.*IndexError.*at {rules.name}:"
    ):
        FILTERS["predicate"](section(rules, "broken")).score(DOCUMENTS)
    with pytest.raises(InputError, match="returned nan for document 'a'"):
        FILTERS["predicate"](section(rules, "nothing")).score(DOCUMENTS)


@pytest.mark.parametrize(
    ("function", "message"),
    [("no_such_module:f", "cannot import 'no_such_module'"), ("json:no_such", "has no function 'no_such'")],
)
def test_a_wrong_name_is_a_mistake_of_the_recipe(tmp_path: Path, function: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: r\ncorpus:\n  sources:\n    web:\n      read: {kind: python-docs}\n"
        f"      filter: [{{kind: predicate, function: '{function}'}}]\n"
    )
    with pytest.raises(InputError, match=rf"function '{function}': .*{message}"):
        load_recipe(recipe)
