"""The whole lifecycle on a tiny recipe: every step leaves its files, none is done twice, a killed one goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from smelt.errors import InputError
from smelt.files import check_directory
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.recipe.load import load_recipe
from smelt.train.records import rows

pytest.importorskip("trl", reason="needs the extra smelt[post]")

STEPS = ["corpus", "tokenizer", "shards", "train", "export", "sft", "sft-evaluation"]


def words(stderr: str) -> dict[str, str]:
    """What was said last of each step."""
    said = (line.partition(": ") for line in stderr.splitlines())
    return {name: what for name, _, what in said if name in STEPS}


@pytest.fixture(scope="module")
def finished(workshop) -> Path:
    result = workshop.smelt("run", "tiny.yaml", "name=whole")
    assert result.returncode == 0, result.stderr
    assert all(word.startswith(("done", "unchanged")) for word in words(result.stderr).values())
    assert "report: runs/whole/report.html" in result.stdout
    return Path(workshop.project / "runs" / "whole")


def test_every_step_leaves_its_files(finished: Path) -> None:
    for name in ("recipe.yaml", "env.json", "metrics.jsonl", "events.jsonl", "timings.json", "report.html"):
        assert (finished / name).stat().st_size > 0
    assert [path.name for path in sorted((finished / "evals").iterdir())] == [
        f"step-{step:08d}.json" for step in (0, 10, 20)
    ]
    for folder in ("export", "posttrain/sft", "checkpoints/step-00000020"):
        check_directory(finished / folder)
    scores = json.loads((finished / "posttrain/sft/eval.json").read_text())
    assert scores["tasks"]["addition"]["n"] == 4
    assert len(json.loads((finished / "posttrain/sft/conversations.json").read_text())) == 5
    assert [row["stage"] for row in rows(finished / "metrics.jsonl")] == ["one"] * 12 + ["two"] * 8


def test_the_export_and_the_tuned_model_load_in_transformers(finished: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from smelt.model.load import load_model

    for folder in (finished / "export", finished / "posttrain/sft"):
        theirs, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        tokens = torch.tensor([AutoTokenizer.from_pretrained(folder)("def add(a, b):").input_ids])
        with torch.no_grad():
            assert torch.allclose(theirs(tokens).logits, load_model(folder)(tokens), atol=1e-4)


def test_post_training_under_torchrun_is_refused_before_anything_starts(workshop) -> None:
    for command in ("run", "posttrain"):
        ranks = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
        result = workshop.smelt(command, "tiny.yaml", "name=many", env=ranks)
        assert result.returncode == 2 and "posttrain: runs in one process" in result.stderr
    assert not (workshop.project / "runs" / "many").exists()


@pytest.mark.parametrize("change", ["evals.tasks=[adition]", "posttrain.tasks=[adition]"])
def test_a_misspelt_task_is_found_before_anything_is_built(workshop, tmp_path: Path, change: str) -> None:
    steps = Steps(tmp_path / "timings.json", lambda text: None)
    with pytest.raises(InputError, match="unknown task 'adition'; did you mean 'addition'"):
        pretrain(workshop.load("misspelt", change), tmp_path, resume=False, steps=steps)
    assert not list(tmp_path.iterdir())


def test_a_second_run_does_nothing(workshop, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    result = workshop.smelt("run", "tiny.yaml", "name=whole")
    assert result.returncode == 0
    assert words(result.stderr) == dict.fromkeys(STEPS, "unchanged, skipped")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_a_changed_stage_runs_again_and_what_it_does_not_touch_does_not(workshop, finished: Path) -> None:
    result = workshop.smelt("run", "tiny.yaml", "name=whole", "posttrain.items=3")
    assert result.returncode == 0
    said = words(result.stderr)
    assert said.pop("sft-evaluation").startswith("done")
    assert set(said.values()) == {"unchanged, skipped"}
    assert load_recipe(finished / "recipe.yaml").section("posttrain").items == 3


def test_killed_anywhere_the_same_command_goes_on(workshop) -> None:
    run = workshop.project / "runs" / "interrupted"
    command = [sys.executable, "-m", "smelt.cli.main", "run", "tiny.yaml", "name=interrupted"]
    waits = [
        lambda: len(list(rows(run / "metrics.jsonl"))) >= 7,
        lambda: (run / "checkpoints" / "step-00000020").is_dir(),
        lambda: (run / "posttrain" / "sft").is_dir(),
    ]
    for reached in waits:
        process = subprocess.Popen(command, cwd=workshop.project, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and not reached():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = workshop.smelt("run", "tiny.yaml", "name=interrupted")
    assert result.returncode == 0, result.stderr
    assert words(result.stderr)["train"] == "unchanged, skipped"
    steps = {row["step"] for row in rows(run / "metrics.jsonl")}
    assert steps == set(range(1, 21))


def test_a_trace_shows_the_documents_behind_a_step(workshop, finished: Path) -> None:
    result = workshop.smelt("data", "trace", "runs/whole", "--step", "20", "--json")
    pieces = json.loads(result.stdout)
    assert {row["source"] for row in pieces} <= {"docs", "math"}
    assert sum(last - first for row in pieces for first, last in [row["columns"]]) == 512
    assert any("Question:" in row["text"] for row in pieces if row["source"] == "math")


def test_import_and_export_bring_a_checkpoint_back_byte_for_byte(workshop, finished: Path) -> None:
    checkpoint = "runs/whole/checkpoints/step-00000020"
    assert workshop.smelt("export", checkpoint, "there").returncode == 0
    assert workshop.smelt("import", "there", "back").returncode == 0
    before, after = (load_file(workshop.project / folder / "model.safetensors") for folder in (checkpoint, "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name
    shutil.rmtree(workshop.project / "there")


def test_chat_answers_on_stdin(workshop, finished: Path) -> None:
    result = workshop.smelt("chat", "runs/whole/posttrain/sft", "--max-tokens", "5", input="What is 2 + 2?\n\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("\n")


def test_eval_scores_a_folder_in_the_chat_format(workshop, finished: Path) -> None:
    tuned = ["runs/whole/posttrain/sft", "--task", "addition", "--items", "3", "--chat", "--json"]
    scores = json.loads(workshop.smelt("eval", *tuned).stdout)
    assert scores["tasks"]["addition"]["format"] == "chat"
