"""The command line as a person and as a script meet it."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest


def test_help_and_recipe_commands_import_no_torch(workshop) -> None:
    commands = (["--help"], *(["recipe", verb, "tiny.yaml"] for verb in ("check", "cost")))
    for arguments in (*commands, ["train", "tiny.yaml", "model.hiden=3"]):
        code = (
            "import sys, smelt.cli.main as m\n"
            f"sys.argv = ['smelt', *{arguments!r}]\n"
            "try:\n    m.main()\nexcept SystemExit:\n    pass\n"
            "sys.exit(bool({'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)))"
        )
        result = subprocess.run([sys.executable, "-c", code], cwd=workshop.project, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "command",
    [
        *["", "run", "train", "posttrain", "eval", "export", "import", "chat", "report"],
        *[
            "recipe check",
            "recipe cost",
            "recipe show",
            "recipe diff",
            "recipe schema",
            "corpus build",
            "corpus inspect",
            "corpus classifier",
        ],
        *["tokenizer train", "tokenizer compare", "tokenizer sweep", "tokenizer choose"],
        *["data build", "data inspect", "data trace", "data find"],
        *["data plan", "data draw", "data propose", "data anneal"],
        *["launch torchrun", "launch slurm", "launch k8s", "launch check"],
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    from typer.testing import CliRunner

    from smelt.cli.main import app

    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Example: smelt" in result.output or not command


def test_json_answers_are_one_object_on_stdout(workshop) -> None:
    checked = workshop.smelt("recipe", "check", "tiny.yaml", "--json")
    assert json.loads(checked.stdout)["steps"] == 20
    built = workshop.smelt("data", "build", "tiny.yaml", "--json")
    assert json.loads(built.stdout)["sources"]["math"]["train"]["documents"] > 200
    assert "unchanged" in built.stderr


def test_the_cost_of_a_recipe_in_words_and_in_json(workshop) -> None:
    words = workshop.smelt("recipe", "cost", "tiny.yaml", "--sequence", "1024").stdout
    facts = json.loads(workshop.smelt("recipe", "cost", "tiny.yaml", "--sequence", "1024", "--json").stdout)
    total = facts["parameters"]["total"]
    assert (facts["vocabulary"], facts["sequence"], facts["cache_bytes"]) == (512, 1024, 2 * 2 * 2 * 16 * 1024)
    assert f"{total:,}" in words and "tiny: 35k parameters" in words
    (workshop.project / "bare.yaml").write_text("base: tiny.yaml\ntokenizer: null\n")
    without = workshop.smelt("recipe", "cost", "bare.yaml")
    assert (without.returncode, "give --vocab N" in without.stderr) == (2, True)
    given = workshop.smelt("recipe", "cost", "bare.yaml", "--vocab", "512", "--json").stdout
    assert json.loads(given)["parameters"] == facts["parameters"]


def test_the_bar_of_a_training_that_fails_gives_the_terminal_back(monkeypatch) -> None:
    from smelt.cli.progress import TrainingProgress

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    training = SimpleNamespace(plan=SimpleNamespace(total_steps=3), at=SimpleNamespace(step=0))
    with pytest.raises(ZeroDivisionError), TrainingProgress() as progress:
        progress.started(training)
        bar = progress._bar
        assert bar.live.is_started
        1 / 0  # noqa: B018
    assert not bar.live.is_started


def test_recipe_diff_answers_no_differences_with_0_and_differences_with_1(workshop) -> None:
    (workshop.project / "child.yaml").write_text("base: tiny.yaml\nname: child\n")
    assert workshop.smelt("recipe", "diff", "tiny.yaml", "tiny.yaml").returncode == 0
    result = workshop.smelt("recipe", "diff", "tiny.yaml", "child.yaml")
    assert (result.returncode, result.stdout.strip()) == (1, "name: tiny -> child")


def test_the_schema_is_valid_json_with_every_section(workshop) -> None:
    schema = json.loads(workshop.smelt("recipe", "schema").stdout)
    assert "posttrain" in schema["properties"]
