"""The quality classifier: its features, what it learns, and how it is kept."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from smelt.cli.corpus import app
from smelt.corpus.build import build_corpus
from smelt.corpus.classifier.compiled import fast_counts
from smelt.corpus.classifier.features import Shape, plain_counts
from smelt.corpus.classifier.labels import labelled
from smelt.corpus.classifier.measures import auc, correlation, measured, ranks
from smelt.corpus.classifier.model import Facts, Model, load, save
from smelt.corpus.classifier.train import train
from smelt.corpus.document import Document
from smelt.corpus.filters.table import FILTERS, reasons
from smelt.errors import InputError
from smelt.files import MANIFEST, read_json
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.judges import Classifier

GOOD = ["theorem", "proof", "energy", "cell", "photosynthesis", "equation", "history", "because", "therefore"]
BAD = ["buy", "cheap", "click", "now", "winner", "casino", "offer", "free", "deal"]
COMMON = ["the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "as", "with"]


def examples(count: int, seed: int = 0) -> tuple[list[str], list[float]]:
    """Texts whose share of good words is their label, 0 to 5."""
    draw = random.Random(seed)
    texts, labels = [], []
    for number in range(count):
        label = number % 6
        words = [draw.choice(GOOD if draw.random() < label / 5 else BAD) for _ in range(40)]
        texts.append(" ".join(word for pair in zip(words, draw.choices(COMMON, k=40), strict=True) for word in pair))
        labels.append(float(label))
    return texts, labels


@pytest.mark.parametrize(
    "shape",
    [
        Shape(buckets=1024),
        Shape(words=1, buckets=5000),
        Shape(words=3, characters=(3, 5), buckets=4096),
        Shape(characters=(1, 2), buckets=1024),
    ],
)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4))
@settings(max_examples=40)
def test_compiled_features_equal_the_plain_ones(shape: Shape, texts: list[str]) -> None:
    for plain, fast in zip(plain_counts(shape, texts), fast_counts(shape, texts), strict=True):
        assert np.array_equal(plain, fast)


def test_features_are_counts_of_words_and_their_pairs() -> None:
    counts = plain_counts(Shape(words=2), ["A cat; a CAT!", "", "a cat a cat a"])
    assert np.diff(counts.starts).tolist() == [4, 0, 4]  # a, cat, "a cat", "cat a"
    assert sorted(counts.counts[:4].tolist()) == [1, 2, 2, 2]
    assert set(counts.indices[:4]) == set(counts.indices[4:])
    assert np.square(counts.values()[:4]).sum() == pytest.approx(1)


def test_a_regression_learns_grades_and_says_how_well() -> None:
    model, report = train(*examples(600), Shape(buckets=2**14))
    assert report["task"] == "regression"
    assert report["rmse"] < 0.5 * report["rmse_of_mean"]
    assert report["spearman"] > 0.9
    unseen, labels = examples(120, seed=1)
    assert correlation(model(unseen).astype(float), np.array(labels)) > 0.9
    assert model([" ".join(5 * GOOD), " ".join(5 * BAD), ""]).tolist() == pytest.approx([5, 0, 2.5], abs=1.2)
    at_three = next(row for row in report["thresholds"] if row["threshold"] == 3)
    assert at_three["f1"] > 0.8


def test_a_classification_gives_the_probability_of_one_label() -> None:
    texts, grades = examples(600)
    names = ["good" if grade >= 3 else "bad" if grade else "worst" for grade in grades]
    model, report = train(texts, names, Shape(buckets=2**14), positive="good")
    assert report["accuracy"] > report["accuracy_of_commoner"] + 0.2
    assert report["auc"] > 0.9
    low, high = model(["casino click " * 40, "theorem proof " * 40])
    assert 0 <= low < 0.5 < high <= 1


def test_training_gives_the_same_model_each_time() -> None:
    one, other = (train(*examples(200), Shape(buckets=2**12))[0] for _ in range(2))
    assert np.array_equal(one.weights, other.weights) and one.bias == other.bias


@pytest.mark.parametrize(
    ("labels", "positive", "message"),
    [
        ([1.0] * 60, None, "every label is 1"),
        (["a"] * 60, "a", "every label is 'a'"),
        (["a", "b"] * 30, None, r"the labels are words; name the good one: --positive a \| b"),
        (["a", "b"] * 30, "c", "'c' is none of the labels"),
        ([1.0, 2.0] * 30, "good", "the labels are numbers"),
        ([1.0, 2.0], None, "2 labelled texts; at least 50"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels: list[Any], positive: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train([f"text {number}" for number in range(len(labels))], labels, Shape(buckets=1024), positive)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', r"2: no field 'label' \(it has 'text'\)"),
        ('{"text": 1, "label": 1}', "2: 'text' is not a string"),
        ('{"text": "a", "label": "good"}', "2: 'label' is 'good'; labels are all numbers or all words"),
        ('{"text": "a", "label": null}', "2: 'label' is None"),
        ('{"text": "a", "label": NaN}', "2: 'label' is nan"),
        pytest.param('{"text": "a", "label": 1' + 400 * "0" + "}", "2: 'label' is 10{39}; a label", id="beyond floats"),
        pytest.param('{"text": "a", "label": ' + 200_000 * "[", r"2: not JSON \(maximum recursion", id="nested"),
        ("[1]", "2: not a JSON object"),
        ("{", "2: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "a", "label": 3}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        labelled([path], "text", "label")


def test_measures_equal_hand_computed_values() -> None:
    scores, targets = np.array([0.9, 0.4, 0.6, 0.1]), np.array([1.0, 1, 0, 0])
    assert ranks(np.array([3.0, 1, 3, 2])).tolist() == [3.5, 1, 3.5, 2]
    assert auc(scores, targets == 1) == 0.75
    facts = Facts(task="classification", shape=Shape(), positive="good")
    found = measured(facts, scores, targets, 0.5)
    assert found["accuracy"] == 0.5
    half = next(row for row in found["thresholds"] if row["threshold"] == 0.5)
    assert half == {"threshold": 0.5, "kept": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5}


def test_the_command_trains_a_model_that_the_filter_uses(tmp_path: Path) -> None:
    texts, labels = examples(300)
    rows = (json.dumps({"text": text, "score": label}) for text, label in zip(texts, labels, strict=True))
    (tmp_path / "labels.jsonl").write_text("\n".join(rows))
    out = tmp_path / "model"
    command = ["classifier", str(tmp_path / "labels.jsonl"), str(out), "--label", "score", "--json"]
    done = CliRunner().invoke(app, [*command, "--characters", "3-4", "--buckets", "4096"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["report"]["rmse"] < 1
    assert sorted(file.name for file in out.iterdir()) == ["classifier.json", MANIFEST, "model.safetensors"]
    section = Classifier(kind="classifier", model=str(out), min_score=3)
    documents = [Document("theorem proof " * 30, "a", "web"), Document("casino click " * 30, "b", "web")]
    scores = FILTERS["classifier"](section).score(documents)
    assert reasons(section, scores)["score too low"].tolist() == [False, True]


@pytest.mark.parametrize("taken", ["thesis", "thesis/years.txt"])
def test_the_command_overwrites_nothing_but_a_classifier(tmp_path: Path, taken: str) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "years.txt").write_text("of work")
    rows = (json.dumps({"text": text, "label": label}) for text, label in zip(*examples(60), strict=True))
    (tmp_path / "labels.jsonl").write_text("\n".join(rows))
    done = CliRunner().invoke(app, ["classifier", str(tmp_path / "labels.jsonl"), str(tmp_path / taken)])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).endswith(
        f"{taken}: exists and is no classifier model; choose another folder or empty it"
    )
    assert (tmp_path / "thesis" / "years.txt").read_text() == "of work"


def constant(score: float) -> Model:
    """A model that gives every text this score."""
    facts = Facts(task="regression", shape=Shape(buckets=1024), high=5)
    return Model(facts, np.zeros(1024, np.float32), score)


def test_a_model_that_was_trained_again_scores_again(tmp_path: Path) -> None:
    """Also in a process, such as a notebook's, that has used the one that was there before."""
    (tmp_path / "web.jsonl").write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(5)))
    section = {"kind": "classifier", "model": str(tmp_path / "model"), "min_score": 1}
    source = {"read": {"kind": "jsonl", "path": str(tmp_path / "web.jsonl")}, "filter": [section]}
    corpus = {"sources": {"web": source}, "executor": {"kind": "local", "workers": 1}}
    recipe = Recipe.model_validate({"name": "test", "corpus": corpus})
    for score in (2, 4):
        save(constant(score), tmp_path / "model")
        build_corpus(recipe, tmp_path / "corpus", artifacts=tmp_path / "artifacts")
        found = read_json(tmp_path / "corpus" / "histograms.json")["web"]["scores"]["classifier.score"]
        assert found["edges"][0] == score


def test_a_kept_model_says_the_same(tmp_path: Path) -> None:
    model, _ = train(*examples(120), Shape(buckets=1024))
    save(model, tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model")(["casino proof"]), model(["casino proof"]))


def test_a_damaged_or_foreign_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model; smelt corpus classifier makes one"):
        Classifier(kind="classifier", model=str(tmp_path), min_score=1).scoring()
    model, _ = train(*examples(120), Shape(buckets=1024))
    save(model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match=r"model\.safetensors: its contents differ"):
        load(tmp_path / "model")


def test_what_the_scores_depend_on_is_the_model_not_the_threshold(tmp_path: Path) -> None:
    for number, buckets in enumerate((1024, 2048)):
        save(train(*examples(120), Shape(buckets=buckets))[0], tmp_path / str(number))
    one, other = (Classifier(kind="classifier", model=str(tmp_path / "0"), min_score=limit) for limit in (1, 2))
    assert one.scoring() == other.scoring()
    assert one.scoring() != Classifier(kind="classifier", model=str(tmp_path / "1"), min_score=1).scoring()


def test_a_filter_without_any_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="min_score or max_score is required"):
        Classifier(kind="classifier", model="m")


def test_scores_beyond_either_limit_drop_a_document() -> None:
    section = Classifier(kind="classifier", model="m", min_score=1, max_score=3)
    dropped = {name: mask.tolist() for name, mask in reasons(section, {"score": np.array([0.5, 1, 3, 3.5])}).items()}
    assert dropped == {"score too low": [True, False, False, False], "score too high": [False, False, False, True]}
