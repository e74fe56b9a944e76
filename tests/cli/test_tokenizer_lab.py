"""`smelt tokenizer compare`, `sweep` and `choose` as a person and as a script meet them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from smelt.cli.main import app
from smelt.errors import InputError
from smelt.model.weights import Description, write_description


def smelt(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["tokenizer", *map(str, arguments)])


def refusal(*arguments: str | Path) -> str:
    """The one line of an InputError."""
    error = smelt(*arguments).exception
    assert isinstance(error, InputError) and "\n" not in str(error)
    return str(error)


@pytest.fixture(scope="module")
def lab(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved comparison of the tiny recipe's tokenizer with a smaller one."""
    folder = tmp_path_factory.mktemp("lab")
    train = ("train", workshop.recipe, "--project", workshop.project, "--json")
    small, large = (json.loads(smelt(*train, *more).stdout) for more in (["tokenizer.train.vocab=400"], []))
    (folder / "en.jsonl").write_text(json.dumps({"text": "the numbers and the text of the list"}) + "\n")
    (folder / "fr.txt").write_text("l'eau qu'il a")
    places = (f"small={small['path']}", f"large={large['path']}", "--text", f"en/web={folder}/en.jsonl")
    result = smelt("compare", *places, "--text", f"fr={folder}/fr.txt", "--out", folder)
    assert result.exit_code == 0, result.output
    (folder / "words.txt").write_text(result.stdout)
    (folder / "places.json").write_text(json.dumps(places[:2]))
    return folder


def test_a_comparison_is_a_table_a_file_and_a_chart(lab: Path) -> None:
    words = (lab / "words.txt").read_text()
    assert "tokens a word (fertility)" in words and "en, web" in words and "fr, text" in words
    found = json.loads((lab / "comparison.json").read_text())
    assert {name: each["ids"] for name, each in found["tokenizers"].items()} == {"small": 400, "large": 512}
    rows = {(row["tokenizer"], row["language"]): row for row in found["rows"]}
    assert rows["large", "en"]["words"] == 8 and rows["large", "fr"]["words"] == 5
    assert rows["large", "en"]["fertility"] <= rows["small", "en"]["fertility"]
    assert (lab / "comparison.png").stat().st_size > 5000


def test_languages_are_not_compared_by_bytes_a_token(lab: Path) -> None:
    """TOK-04: refused across languages, before any work; allowed within one."""
    texts = [f"--text=en={lab}/en.jsonl", f"--text=fr={lab}/fr.txt"]
    places = json.loads((lab / "places.json").read_text())
    assert "cannot compare en, fr" in refusal("compare", *places, *texts, "--by", "bytes_per_token")
    within = smelt("compare", *places, texts[0], "--by", "bytes_per_token", "--json")
    assert set(json.loads(within.stdout)["by"]["bytes_per_token"]) == {"small", "large"}


def test_the_chooser_answers_reuse_with_0_and_training_with_1(workshop: Any, lab: Path) -> None:
    """TOK-07: with reasons."""
    common = ("choose", workshop.recipe, lab / "comparison.json")
    chosen = smelt(*common, "--max-share", "0.9", "--max-fertility", "9", "--weight", "en=1")
    assert chosen.exit_code == 0 and chosen.stdout.startswith("reuse "), chosen.output
    none = smelt(*common, "--max-fertility", "1.01", "--json")
    assert none.exit_code == 1 and json.loads(none.stdout)["name"] is None
    assert smelt(*common, "--max-share", "1").exit_code == 2
    assert "write LANGUAGE=SHARE" in refusal(*common, "--weight", "en")
    assert "not a comparison; make it with" in refusal("choose", workshop.recipe, lab / "places.json")


def test_the_chooser_takes_a_model_that_starts_from_a_checkpoint(workshop: Any, lab: Path, tmp_path: Path) -> None:
    write_description(tmp_path, Description(workshop.load("tiny").model, 512, torch.float32, {}))
    limits = ("--max-share", "0.9", "--max-fertility", "9")
    common = ("choose", workshop.recipe, lab / "comparison.json", *limits, "--json")
    assert json.loads(smelt(*common, f"model={{load: {tmp_path}}}").stdout) == json.loads(smelt(*common).stdout)


def test_a_sweep_is_a_table_a_file_and_a_chart(workshop: Any, tmp_path: Path) -> None:
    """TOK-08: sizes in order, each with what it saves; the embedding's share of the recipe's model."""
    common = ("sweep", workshop.recipe, "--project", workshop.project, "--sizes")
    result = smelt(*common, "1Ki,384,512", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["ids"] for row in rows] == [384, 512, 1024]
    assert rows[0]["saved"] is None and all(row["saved"] > 0 for row in rows[1:])
    shares = [row["embedding_share"] for row in rows]
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] < 1
    assert "docs" in result.stdout and "1,024" in result.stdout
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    for sizes, words in (("1k", "give two or more"), ("100,1k", "from 384 up"), ("4x,8k", "--sizes: unknown unit 'x'")):
        assert words in refusal(*common, sizes)


def test_two_tokenizers_of_one_name_are_told_apart(lab: Path) -> None:
    place = json.loads((lab / "places.json").read_text())[0]
    assert "a tokenizer named 'small' already" in refusal("compare", place, place, "--text", f"en={lab}/en.jsonl")
