"""A run on packed windows goes on exactly, and its checkpoints say which streams of tokens it read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smelt.cli.main import app
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.lifecycle.provenance import find_text, trace_step
from smelt.marathon.run import Outcome, train_run
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import read_progress
from smelt.train.records import rows

PACKED = ("train.packing=best-fit", "evals.tasks=[]")


def train(workshop, recipe: Recipe, resume: bool = False) -> Outcome:
    ready = prepare(recipe, workshop.project)
    run = workshop.project / "runs" / recipe.name
    return train_run(recipe, run, ready.tokenizer, ready.sources(recipe), resume=resume)


def losses(run: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(run / "metrics.jsonl")}


@pytest.fixture(scope="module")
def packed(workshop) -> Path:
    """A finished run on packed windows."""
    return train(workshop, workshop.load("packed", *PACKED)).run


def copy(packed: Path, name: str, drop: tuple[int, ...] = (20,)) -> Path:
    """The run under another name, without its last checkpoints."""
    other = packed.parent / name
    shutil.copytree(packed, other)
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe.replace("name: packed", f"name: {name}"))
    for step in drop:
        shutil.rmtree(other / "checkpoints" / f"step-{step:08d}")
    return other


def change_state(checkpoint: Path, **facts: object) -> None:
    """Put other facts into a checkpoint, and into its manifest."""
    state, manifest = checkpoint / "state.json", checkpoint / "manifest.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), **facts}))
    entries = json.loads(manifest.read_text())
    entries["files"].pop("state.json", None)
    manifest.write_text(json.dumps(entries))


def test_a_packed_run_learns_and_goes_on_bit_for_bit(workshop, packed: Path) -> None:
    """MARA-15, DATA-08, under packing."""
    whole = losses(packed)
    assert len(whole) == 20 and whole[20] < whole[1] - 0.5
    again = copy(packed, "packed-again", (15, 20))
    assert train(workshop, workshop.load("packed-again", *PACKED), resume=True).done
    assert losses(again) == whole
    weights = "checkpoints/step-00000020/model.safetensors"
    assert (again / weights).read_bytes() == (packed / weights).read_bytes()
    plain = train(workshop, workshop.load("not-packed", "evals.tasks=[]")).run
    assert losses(plain) != whole


def test_a_checkpoint_has_the_fingerprint_of_every_stream_that_the_run_reads(workshop, packed: Path) -> None:
    recipe = workshop.load("packed", *PACKED)
    ready = prepare(recipe, workshop.project)
    at = read_progress(packed / "checkpoints" / "step-00000020")
    tables = {path.name for path in (workshop.project / "artifacts" / "packing").iterdir()}
    identities = {name: shards.identity for name, shards in ready.sources(recipe).items()}
    assert {name: at.streams.pop(name) for name in identities} == identities
    assert set(at.streams) == {"docs packed to 64", "math packed to 64"}
    assert set(at.streams.values()) <= tables
    padding = sum(each.get("padding", 0) for each in at.consumed.values())
    assert padding > 0 and at.tokens == padding + sum(each["tokens"] for each in at.consumed.values())


def test_other_tokens_or_windows_than_a_checkpoint_had_are_refused_by_name(
    workshop, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy(packed, "packed-other")
    recipe = workshop.load("packed-other", *PACKED)
    checkpoint = run / "checkpoints" / "step-00000015"
    streams = read_progress(checkpoint).streams
    change_state(checkpoint, data="another", streams={**streams, "math": "another"})
    with pytest.raises(InputError, match=r"the tokenizer differ from those of step 15 \(math\); restore them"):
        train(workshop, recipe, resume=True)
    whole = json.loads((packed / "checkpoints" / "step-00000015" / "state.json").read_text())
    change_state(checkpoint, **whole)
    monkeypatch.setattr("smelt.dataset.packing.FORMAT", 99)
    with pytest.raises(InputError, match=r"step 15 \(docs packed to 64, math packed to 64\)"):
        train(workshop, recipe, resume=True)


def test_another_packing_of_steps_already_taken_is_refused_and_of_later_ones_allowed(workshop, packed: Path) -> None:
    copy(packed, "packed-changed", (15, 20))
    with pytest.raises(
        InputError, match=r"train\.packing: best-fit -> concatenate: step 1 of the 12 .* another packing"
    ):
        train(workshop, workshop.load("packed-changed", "evals.tasks=[]"), resume=True)
    wanted = workshop.load("packed-changed", *PACKED, "train.stages.1.packing=concatenate")
    run = train(workshop, wanted, resume=True).run
    assert {step: loss for step, loss in losses(run).items() if step <= 12} == {
        step: loss for step, loss in losses(packed).items() if step <= 12
    }
    assert losses(run)[13] != losses(packed)[13]


def test_a_branch_of_a_packed_run_needs_its_streams_even_where_it_adds_a_source(workshop, packed: Path) -> None:
    trunk = copy(packed, "packed-trunk", ())
    changes = ("train.stages.0.steps=2", "train.from={run: packed-trunk, step: 15}", *PACKED)
    branch = workshop.load("packed-branch", *changes, "train.packing=concatenate")
    run = train(workshop, branch).run
    assert min(losses(run)) == 16
    assert {"docs packed to 64", "docs"} <= set(read_progress(run / "checkpoints" / "step-00000017").streams)
    change_state(trunk / "checkpoints" / "step-00000015", streams={"docs": "another"}, data="another")
    shards = workshop.shards / "math" / "train"
    more = workshop.load("packed-more", *changes, f"dataset.shards={{more: {shards}}}")
    with pytest.raises(InputError, match=r"train\.from\.run: .* read other token shards, .* \(docs\); restore them"):
        train(workshop, more)


def an_end(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """A row of a step with the last part of a document, and its text."""
    end = "<|endoftext|>"
    parts = [row for row in rows if row["text"].endswith(end) and row["source"] == "math"]
    part = max(parts, key=lambda row: len(row["text"]))
    return part, part["text"].removesuffix(end)


def test_a_trace_and_a_find_agree_on_a_packed_run(workshop, packed: Path) -> None:
    """What a step is said to hold is found again at that step, in the same row and columns."""
    piece, text = an_end(trace_step(packed, 7, workshop.project))
    places = find_text(packed, text, workshop.project, limit=100)
    wanted = ("math", piece["document"], piece["offset"])
    [place] = [place for place in places if (place["source"], place["document"], place["offset"]) == wanted]
    seen = [each for each in place["seen"] if each["step"] == 7]
    first, last = piece["columns"]
    assert seen == [{"step": 7, "window": piece["window"], "columns": [first, last - 1], "epoch": 0, "done": True}]
    assert all(each["done"] == (each["step"] <= 20) for each in place["seen"])


def test_the_command_finds_a_text_and_answers_1_where_there_is_none(workshop, packed: Path) -> None:
    _, text = an_end(trace_step(packed, 7, workshop.project))
    run = [*("--run", str(packed)), *("--project", str(workshop.project))]
    found = CliRunner().invoke(app, ["data", "find", text, *run])
    assert found.exit_code == 0 and "step 7 " in found.stdout
    none = CliRunner().invoke(app, ["data", "find", "no such words at all", *run, "--json"])
    assert (none.exit_code, json.loads(none.stdout)) == (1, [])
    refused = CliRunner().invoke(app, ["data", "find", "words", "--run", "runs/nowhere"])
    assert isinstance(refused.exception, InputError) and "runs/nowhere: no such run" in str(refused.exception)
    shards = next((workshop.project / "artifacts" / "shards").iterdir())
    told = CliRunner().invoke(app, ["data", "inspect", str(shards), "--sequence", "64", "--span", "1024"])
    assert told.exit_code == 0 and "best-fit" in told.stdout and "concatenate" in told.stdout


def test_the_data_plan_tells_what_packing_costs(workshop) -> None:
    arguments = ["data", "plan", str(workshop.recipe), *PACKED, "--project", str(workshop.project)]
    words = CliRunner().invoke(app, arguments).stdout
    assert "packed docs to 64: padding " in words and "packed math to 64: padding " in words
    facts = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert facts["sources"]["math"]["available"] == facts["packing"]["math to 64"]["tokens"]
    assert facts["packing"]["math to 64"]["best-fit"]["cut_needlessly"] == 0
