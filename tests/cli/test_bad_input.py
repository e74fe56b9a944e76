"""Mistakes at the command line: one line that names what is wrong and the mend, exit code 2, nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest

MISTAKES = [
    (["recipe", "check", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
    (["recipe", "check", "tiny.yaml", "evals.tasks=[adition]"], "unknown task 'adition'; did you mean 'addition'?"),
    (["train", "tiny.yaml", "model.hiden=3"], "model.hiden: unknown key; did you mean 'hidden'?"),
    (
        ["train", "tiny.yaml", "train.batch_tokens=4K"],
        "train.batch_tokens: unknown unit 'K' in '4K'; did you mean 'k'?",
    ),
    (
        ["train", "tiny.yaml", "model.attention.heads=3", "model.attention.kv_heads=2"],
        "must be divisible by kv_heads (2)",
    ),
    (["train", "tiny.yaml", "train.stages.0.mixture.web=1"], "unknown source 'web' in stage 'one'"),
    (["corpus", "build", "tiny.yaml", "corpus.sources.docs.read={kind: jsonl, path: gone.jsonl}"], "gone.jsonl"),
    (["corpus", "build", "tiny.yaml", "corpus.sources.docs.read={kind: jsonl, path: empty.jsonl}"], "docs"),
    (["corpus", "build", "tiny.yaml", "corpus.sources.docs.read={kind: jsonl, path: broken.jsonl}"], "broken.jsonl"),
    (["tokenizer", "train", "tiny.yaml", "tokenizer={load: nowhere}"], "nowhere"),
    (["train", "tiny.yaml", "name=x", "dataset.shards={web: nowhere}"], "nowhere: no such folder of token shards"),
    (["corpus", "inspect", "nowhere"], "nowhere"),
    (["corpus", "classifier", "broken.jsonl", "model"], "broken.jsonl"),
    (["corpus", "classifier", "labels.jsonl", "model", "--characters", "5-3"], "--characters"),
    (["data", "inspect", "nowhere"], "nowhere"),
    (["data", "trace", "runs/nowhere", "--step", "1"], "runs/nowhere: no such run"),
    (["eval", "nowhere", "--task", "addition"], "nowhere"),
    (["export", "nowhere", "out"], "nowhere: not a checkpoint"),
    (["import", "nowhere", "out"], "nowhere"),
    (["report", "runs/nowhere"], "runs/nowhere: no such run folder"),
    (["eval", "runs", "--task", "addition"], "runs: not a model folder"),
    (["posttrain", "tiny.yaml", "name=nowhere"], "no such run"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[" ".join(command) for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(workshop, command: list[str], message: str) -> None:
    (workshop.project / "empty.jsonl").write_text("")
    (workshop.project / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    before = sorted(path for path in workshop.project.rglob("*") if "runs" not in path.parts)
    result = workshop.smelt(*command)
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("smelt: ") and message in last
    assert "Traceback" not in result.stderr and result.stdout == ""
    after = sorted(path for path in workshop.project.rglob("*") if "runs" not in path.parts)
    assert {path.name for path in set(after) - set(before)} <= {"corpus", "tokenizer", "shards"}


def damaged(workshop, name: str) -> Path:
    """A copy of the project's training shards of one source, to damage."""
    source = workshop.shards / "math" / "train"
    return Path(shutil.copytree(source, workshop.project / name))


def test_a_truncated_shard_is_named(workshop) -> None:
    folder = damaged(workshop, "truncated")
    shard = next(folder.glob("*.ds"))
    shard.write_bytes(shard.read_bytes()[:-10])
    result = workshop.smelt("train", "tiny.yaml", "name=truncated", "dataset.shards={web: truncated}")
    assert result.returncode == 2
    assert shard.name in result.stderr.splitlines()[-1] and "truncated?" in result.stderr


def test_a_truncated_artifact_is_named(workshop) -> None:
    project = workshop.project / "elsewhere"
    shutil.copytree(workshop.project / "artifacts", project / "artifacts")
    shard = next((project / workshop.shards.relative_to(workshop.project)).glob("docs/train/*.ds"))
    shard.write_bytes(shard.read_bytes()[:-10])
    result = workshop.smelt("train", "tiny.yaml", "--project", "elsewhere")
    assert result.returncode == 2
    assert shard.name in result.stderr.splitlines()[-1] and "truncated?" in result.stderr


def test_shards_of_another_tokenizer_are_refused(workshop) -> None:
    damaged(workshop, "other")
    changed = ["tokenizer.train.vocab=600", "dataset.shards={web: other}"]
    result = workshop.smelt("train", "tiny.yaml", "name=other", *changed)
    assert result.returncode == 2
    assert "tokenizer" in result.stderr.splitlines()[-1]


def test_a_vocabulary_larger_than_the_shards_integers_is_refused(workshop, tmp_path: Path) -> None:
    folder = damaged(workshop, "narrow")
    metadata = next(folder.glob("*.metadata"))
    metadata.write_text("a-tokenizer-of-elsewhere|2\n")
    tokenizer = workshop.project / "wide"
    shutil.copytree(next((workshop.project / "artifacts" / "tokenizer").glob("*")), tokenizer)
    described = json.loads((tokenizer / "tokenizer.json").read_text())
    vocabulary = described["model"]["vocab"]
    vocabulary |= {f"made up {index}": index for index in range(len(vocabulary), 70_000)}
    (tokenizer / "tokenizer.json").write_text(json.dumps(described))
    recipe = ["tokenizer={load: wide}", "dataset.shards={web: narrow}"]
    result = workshop.smelt("train", "tiny.yaml", "name=narrow", *recipe)
    assert result.returncode == 2
    assert "narrow has 2 bytes a token, too few for the tokenizer's 70,000 ids" in result.stderr.splitlines()[-1]
