"""`smelt data plan|draw|propose|anneal` as a person and as a script meet them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smelt.cli.main import app
from smelt.errors import InputError
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.recipe.load import load_recipe
from smelt.recipe.mixtures.weights import shares
from smelt.recipe.plan import Plan
from smelt.train.records import rows

SMOLLM3 = str(Path(__file__).parents[2] / "recipes" / "mixtures" / "smollm3.yaml")
SHORT = (
    "train.stages.0.steps=2",
    "train.stages.1.steps=1",
    "train.checkpoints={every_steps: 1, keep: 9}",
    "evals={tasks: [], every_steps: 100, validation_bytes: 300}",
)


def smelt(*arguments: object, code: int = 0) -> Any:
    """Run a command in this process; raises what it raises."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def train(workshop: Any, recipe: Any) -> Path:
    run: Path = workshop.project / "runs" / recipe.name
    pretrain(recipe, workshop.project, resume=False, steps=Steps(run / "timings.json", lambda text: None))
    return run


def test_a_plan_is_a_table_a_picture_and_notes(tmp_path: Path) -> None:
    """DATA-01, DATA-03, DATA-04, DATA-05: steps, class sums, epochs; the sum of 1.0057 and the sixth epoch are said."""
    result = smelt(
        "data", "plan", SMOLLM3, "--project", tmp_path, "--have", "finemath=54B", "--have", "infiwebmath=15B"
    )
    lines = result.stdout.splitlines()
    assert lines[0].split()[2:8] == ["base", "8.14T", "quality", "1.76T", "decay", "1.23T"]
    assert lines[1].split()[2:] == ["3,450,000", "4,198,000", "4,720,000"]
    sums = {
        line.split()[0]: line.split()[1:6:2] for line in lines[lines.index("by class") + 1 :] if line.count("%") > 1
    }
    assert sums["web"] == ["72.80", "64.90", "50.43"] and sums["code"] == ["12.50", "14.32", "23.20"]
    assert next(line for line in lines if line.startswith("finemath ")).split()[-2:] == ["54B", "2.93"]
    assert "sum to 1.0057, not to 1; they are normalised" in result.stderr
    assert "infiwebmath: 6.8 epochs" in result.stderr
    assert (tmp_path / "artifacts" / "plans" / "smollm3.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_knows_the_sizes_of_what_has_been_built(workshop: Any, tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    known = ("data", "plan", workshop.recipe, "--project", workshop.project, "--picture", picture, "--json")
    facts = json.loads(smelt(*known).stdout)
    assert all(row["available"] > 1000 and row["epochs"] > 0 for row in facts["sources"].values())
    assert picture.read_text().startswith("<?xml")
    fresh = json.loads(smelt("data", "plan", workshop.recipe, "--project", tmp_path, "--json").stdout)
    assert all(row["available"] is None for row in fresh["sources"].values())
    assert fresh["tokens"] == facts["tokens"] == 20 * 512


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--have", "web=1k"),
            r"--have web=1k: expected SOURCE=TOKENS, such as math=54B \(known sources: docs, math\)",
        ),
        (("--have", "docs"), "expected SOURCE=TOKENS"),
        (("--have", "docs=5G"), "--have docs=5G: unknown unit 'G'"),
        (("--picture", "plan.jpg"), r"plan\.jpg: a picture's name ends with \.png"),
        (("train=null",), "needs the section 'train'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_a_line(
    workshop: Any, tmp_path: Path, arguments: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        smelt("data", "plan", workshop.recipe, *arguments, "--project", tmp_path)


def test_small_runs_are_drawn_trained_and_regressed(workshop: Any) -> None:
    """The whole of it, on runs of three steps: results are read back as the mixtures that were drawn."""
    out, base = workshop.project / "proxies", workshop.project / "proxy.yaml"
    base.write_text(f"base: {workshop.recipe.name}\nname: proxy\n")
    smelt("data", "draw", base, "--out", out, "--count", 10)
    paths = sorted(out.glob("*.yaml"))
    assert [path.stem for path in paths] == [f"proxy-{number:03d}" for number in range(10)]
    runs = [train(workshop, load_recipe(path, SHORT)) for path in paths]
    drawn = load_recipe(paths[3]).section("train").stages[0].mixture
    seen = Plan(load_recipe(runs[3] / "recipe.yaml")).at(0).mixture
    assert seen == drawn and len({str(load_recipe(path).section("train").stages[0].mixture) for path in paths}) == 10
    result = CliRunner().invoke(app, ["data", "propose", *map(str, runs), "--target", "validation.math", "--json"])
    facts = json.loads(result.stdout)
    assert result.exit_code == (0 if facts["sure"] else 1)
    assert facts["runs"] == 10 and set(facts["mixture"]) == {"docs", "math"}
    with pytest.raises(InputError, match=r"--target validation\.web: .* has not measured it, but validation, "):
        smelt("data", "propose", *runs, "--target", "validation.web")
    with pytest.raises(InputError, match=r"nowhere: no such run"):
        smelt("data", "propose", "nowhere")


def test_an_annealing_pair_is_written_and_trains_off_its_trunk(workshop: Any) -> None:
    """DATA-09: 60 % of the candidate in one run, none of it in its control, from the trunk's checkpoint."""
    only_math = ("train.stages.0.mixture={math: 1}", "train.stages.1.mixture={math: 1}")
    trunk = train(workshop, workshop.load("trunk-of-math", *SHORT, *only_math))
    out = workshop.project / "pair"
    smelt("data", "anneal", trunk, "--step", 2, "--candidate", "docs", "--tokens", "2560", "--out", out)
    read = {}
    for name in ("docs", "control"):
        recipe = load_recipe(out / f"trunk-of-math-anneal-{name}.yaml")
        run = train(workshop, recipe)
        last = [row for row in rows(run / "metrics.jsonl") if row["step"] == 7][-1]
        read[name] = {key: last.get(f"tokens_{key}", 0) for key in ("docs", "math")}
        assert last["lr"] < 0.3 * 3e-3
    assert read == {"docs": {"docs": 1536, "math": 2048}, "control": {"docs": 0, "math": 3584}}
    assert shares(load_recipe(out / "trunk-of-math-anneal-docs.yaml").section("train").stages[0].mixture)["docs"] == 0.6
    with pytest.raises(InputError, match="--step 9: run 'trunk-of-math' has steps 1 to 3"):
        smelt("data", "anneal", trunk, "--step", 9, "--candidate", "docs", "--out", out)
