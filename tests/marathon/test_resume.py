"""A run that is killed, stopped or damaged goes on exactly where it was, or says why it does not."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smelt.dataset.shards import open_sources
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.marathon.evaluate import Measure
from smelt.marathon.run import Outcome, train_run
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoints
from smelt.train.records import rows


def train(workshop, recipe: Recipe, resume: bool = False, said: list[str] | None = None) -> Outcome:
    ready = prepare(recipe, workshop.project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    say = (said if said is not None else []).append
    run = workshop.project / "runs" / recipe.name
    return train_run(recipe, run, ready.tokenizer, sources, resume=resume, say=say)


def losses(run: Path) -> dict[int, float]:
    """Step -> loss, the last row of each step."""
    return {row["step"]: row["loss"] for row in rows(run / "metrics.jsonl")}


def start(workshop, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "smelt.cli.main", "train", "tiny.yaml", f"name={name}", *LONG, *arguments]
    return subprocess.Popen(command, cwd=workshop.project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


LONG = ("train.stages.0.steps=120", "train.stages.1.steps=80", "evals.tasks=[]", "evals.every_steps=1k")


def wait_for_steps(run: Path, process: subprocess.Popen[bytes], steps: int) -> None:
    while process.poll() is None and len(list(rows(run / "metrics.jsonl"))) < steps:
        time.sleep(0.005)


def test_killed_three_times_at_random_every_later_loss_is_bitwise_the_same(workshop) -> None:
    """MARA-15, DATA-08."""
    straight = workshop.project / "runs" / "straight"
    assert start(workshop, "straight").wait() == 0
    killed = workshop.project / "runs" / "killed"
    chance = random.Random()
    for life in range(3):
        process = start(workshop, "killed", *(["--resume"] if life else []))
        before = len(list(rows(killed / "metrics.jsonl")))
        wait_for_steps(killed, process, before + chance.randint(1, 60))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(workshop, "killed", "--resume").wait() == 0
    assert losses(killed) == losses(straight)
    assert len(losses(killed)) == 200
    lives = {row["life"] for row in rows(killed / "metrics.jsonl")}
    assert lives >= {0, 3}
    weights = "checkpoints/step-00000200/model.safetensors"
    assert (killed / weights).read_bytes() == (straight / weights).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_leaves_cleanly(workshop, number: signal.Signals) -> None:
    name = f"asked-{number.name}"
    run = workshop.project / "runs" / name
    process = start(workshop, name)
    wait_for_steps(run, process, 3)
    process.send_signal(number)
    assert process.wait() == 130
    done = max(losses(run))
    assert [path.name for path in checkpoints(run)][-1] == f"step-{done:08d}"
    assert [row["kind"] for row in rows(run / "events.jsonl")][-1] == "stop"


def test_killed_in_its_last_evaluation_a_run_makes_up_for_it(workshop, monkeypatch) -> None:
    """MARA-15: the last checkpoint is whole by then; going on measures it and closes the record, once."""
    recipe = workshop.load("nearly")
    run = workshop.project / "runs" / "nearly"
    steps = Steps(run / "timings.json", lambda text: None)
    measure = Measure.__call__

    def killed(self: Measure, run: Path, step: int, *rest: object) -> None:
        if step == 20:
            raise KeyboardInterrupt
        measure(self, run, step, *rest)

    with monkeypatch.context() as last, pytest.raises(KeyboardInterrupt):
        last.setattr(Measure, "__call__", killed)
        pretrain(recipe, workshop.project, resume=False, steps=steps)
    assert [path.name for path in checkpoints(run)][-1] == "step-00000020"
    for _ in range(2):
        pretrain(recipe, workshop.project, resume=True, steps=Steps(run / "timings.json", lambda text: None))
        (run / "timings.json").unlink()
        assert json.loads((run / "evals" / "step-00000020.json").read_text())["step"] == 20
        kinds = [row["kind"] for row in rows(run / "events.jsonl")]
        assert kinds.count("done") == 1 and kinds.count("resume") == 0


def test_a_damaged_checkpoint_is_passed_over_for_the_newest_whole_one(workshop) -> None:
    recipe = workshop.load("damaged")
    run = train(workshop, recipe).run
    whole = losses(run)
    assert [path.name[-2:] for path in checkpoints(run)] == ["12", "15", "20"]
    weights = run / "checkpoints" / "step-00000020" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    half = run / "checkpoints" / ".step-00000021.abc"
    shutil.copytree(run / "checkpoints" / "step-00000015", half)
    said: list[str] = []
    assert train(workshop, recipe, resume=True, said=said).done
    assert "passing over a damaged checkpoint" in said[0] and "model.safetensors" in said[0]
    assert said[1].endswith("step-00000015")
    assert losses(run) == whole


def test_an_existing_run_is_not_started_over_by_mistake(workshop) -> None:
    recipe = workshop.load("twice")
    train(workshop, recipe)
    with pytest.raises(InputError, match="exists already; add --resume"):
        train(workshop, recipe)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("corpus.sources.math.documents=200", "corpus.sources.math.documents: None -> 200"),
        ("train.optimizer.lr=1e-4", "train.optimizer.lr: 0.003 -> 0.0001"),
        ("train.stages.0.mixture.docs=0.9", "train.stages.0.mixture.docs: 0.5 -> 0.9"),
        ("seed=1", "seed: 0 -> 1"),
        ("model.layers=3", "model.layers: 2 -> 3"),
    ],
)
def test_a_resume_that_would_change_steps_already_taken_is_refused_by_name(workshop, change: str, named: str) -> None:
    run = workshop.project / "runs" / "frozen"
    if not run.exists():
        train(workshop, workshop.load("frozen"))
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError) as caught:
        train(workshop, workshop.load("frozen", change), resume=True)
    assert named in str(caught.value)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_stages_that_have_not_begun_may_change_and_earlier_losses_stay(workshop) -> None:
    """OPT-08 (X): a run whose later stages changed before decay equals one planned so from the outset."""
    constant = "train.schedule={kind: wsd, warmup_steps: 2, decay_fraction: 0}"
    planned = train(workshop, workshop.load("planned", constant, "train.stages.1.steps=14")).run
    short = workshop.load("extended", constant, "train.stages.1.steps=4")
    run = train(workshop, short).run
    shutil.rmtree(run / "checkpoints" / "step-00000016")
    shutil.rmtree(run / "checkpoints" / "step-00000015")
    longer = workshop.load("extended", constant, "train.stages.1.steps=14")
    assert train(workshop, longer, resume=True).step == 26
    assert losses(run) == losses(planned)
    assert load_recipe(run / "recipe.yaml").section("train").stages[1].steps == 14


def test_changed_stages_that_alter_learning_rates_already_used_are_refused(workshop) -> None:
    run = train(workshop, workshop.load("cosine", "train.schedule={kind: cosine, warmup_steps: 2}")).run
    for step in (15, 20):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    wanted = workshop.load("cosine", "train.schedule={kind: cosine, warmup_steps: 2}", "train.stages.1.steps=30")
    with pytest.raises(InputError, match="learning rate"):
        train(workshop, wanted, resume=True)


def test_other_shards_under_the_same_recipe_are_refused(workshop) -> None:
    recipe = workshop.load("swapped")
    run = train(workshop, recipe).run
    state = run / "checkpoints" / "step-00000020" / "state.json"
    changed = {**json.loads(state.read_text()), "data": "somethingelse"}
    manifest = run / "checkpoints" / "step-00000020" / "manifest.json"
    state.write_text(json.dumps(changed))
    entries = json.loads(manifest.read_text())
    entries["files"].pop("state.json")
    manifest.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="token shards or the tokenizer differ"):
        train(workshop, recipe, resume=True)


def test_a_full_disk_is_one_line_and_leaves_whole_checkpoints_only(workshop, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        shutil.copytree(workshop.project / "artifacts", tmp_path / "artifacts")
        (small / "artifacts").symlink_to(tmp_path / "artifacts")
        result = workshop.smelt("train", "tiny.yaml", "name=full", "--project", small)
        assert result.returncode == 2
        assert "the disk is full; free some space" in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
        kept = checkpoints(small / "runs" / "full")
        assert all((path / "manifest.json").is_file() for path in kept)
        assert not list((small / "runs" / "full" / "checkpoints").glob(".step-*"))
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        assert workshop.smelt("train", "tiny.yaml", "name=full", "--project", small, "--resume").returncode == 0
    finally:
        subprocess.run(["umount", small], check=True)
