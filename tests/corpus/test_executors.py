"""Who does the work changes nothing: processes of this machine, one of which is killed, Ray's, and Slurm's."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smelt.corpus import cluster as clusters
from smelt.corpus.alone import alone
from smelt.corpus.build import build_corpus
from smelt.corpus.document import Document
from smelt.corpus.executors import perform
from smelt.corpus.stages.folder import Folder
from smelt.corpus.stages.tasks import Task
from smelt.corpus.stages.texts import write_texts
from smelt.errors import InputError
from smelt.files import read_json
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.executor import Local, SlurmArray

sys.path.append(str(Path(__file__).parent.parent / "infra"))

SLOW = """
import time
def slowly(document):
    time.sleep(0.02)
    return "7" not in document.text
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files of documents, and a predicate that takes its time."""
    for part in range(4):
        rows = (f'{{"text": "document {part} {index} of several"}}\n' for index in range(30))
        (tmp_path / f"{part}.jsonl").write_text("".join(rows))
    (tmp_path / "slow_predicate.py").write_text(SLOW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(folder: Path, executor: dict[str, Any], function: str = "slow_predicate:slowly") -> Recipe:
    source = {"read": {"kind": "jsonl", "path": str(folder / "*.jsonl")}}
    source["filter"] = [{"kind": "predicate", "function": function}]
    corpus = {"sources": {"web": source}, "dedup": [{"kind": "exact"}], "executor": executor}
    return Recipe.model_validate({"name": "test", "corpus": corpus})


def contents(corpus: Path) -> dict[str, bytes]:
    files = (file for file in corpus.rglob("*") if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(corpus)): file.read_bytes() for file in files}


def processes(words: str) -> list[int]:
    """Processes with these words, of those that this one started (or they in turn), or that name its own folder."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    split = (line.split(None, 2) for line in listed.splitlines())
    table = [(int(pid), int(parent), "".join(rest)) for pid, parent, *rest in split]
    ours = {os.getpid()}
    for _ in range(8):
        ours |= {pid for pid, parent, _ in table if parent in ours}
    return [pid for pid, _, rest in table if words in rest and (pid in ours or os.getcwd() in rest)]


@contextmanager
def killing(words: str, seen: Path, pattern: str) -> Iterator[list[int]]:
    """Kill one process of these words, once, when something matches `pattern` under `seen`."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and not killed:
            found = processes(words) if list(seen.glob(pattern)) else []
            if found:
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_a_killed_process_changes_nothing(folder: Path) -> None:
    build_corpus(recipe(folder, {"kind": "local", "workers": 1}), folder / "one")
    with killing("smelt.corpus.worker", folder / "artifacts", "texts/*/manifest.json") as killed:
        build_corpus(recipe(folder, {"kind": "local", "workers": 2}), folder / "two", artifacts=folder / "artifacts")
    assert killed
    assert contents(folder / "two") == contents(folder / "one")
    assert not list((folder / "artifacts").rglob(".*"))


def test_a_task_whose_process_always_dies_is_named(folder: Path) -> None:
    (folder / "deadly_predicate.py").write_text("import os\ndef dies(document):\n    os._exit(9)\n")
    with pytest.raises(InputError, match=r"corpus\.sources\.web: measure: its process died 3 times \(exit code 9\)"):
        build_corpus(recipe(folder, {"kind": "local", "workers": 2}, "deadly_predicate:dies"), folder / "corpus")


def test_a_mistake_met_in_a_process_reads_like_one_met_here(folder: Path) -> None:
    def task(number: int) -> Task:
        read = {"kind": "jsonl", "path": str(folder / "gone.jsonl")}
        facts = {"source": "web", "section": {"read": read}, "seed": 0, "part": str(folder / "gone.jsonl")}
        return Task("texts", "web", {**facts, "number": number, "folder": str(folder / "out")}, (f"{folder}/{number}",))

    for workers in (1, 2):
        with pytest.raises(InputError, match=r"^corpus\.sources\.web: .*gone\.jsonl: no such file; check the path$"):
            perform([task(0), task(1)], Local(workers=workers), folder / "logs", lambda *told: None)


def test_a_bug_met_in_a_process_keeps_its_traceback(folder: Path) -> None:
    tasks = [Task("texts", "web", {"number": number}, (f"{folder}/{number}",)) for number in range(2)]
    with pytest.raises(
        RuntimeError, match=r"texts of corpus\.sources\.web failed:\nTraceback[\s\S]*KeyError: 'section'"
    ):
        perform(tasks, Local(workers=2), folder / "logs", lambda *told: None)


def test_a_script_without_a_guard_may_build(folder: Path) -> None:
    build = "build_corpus(Recipe.model_validate(json.load(open('recipe.json'))), Path('corpus'))"
    script = "import json\nfrom pathlib import Path\nfrom smelt.corpus.build import build_corpus\n"
    script += f"from smelt.recipe.schema import Recipe\nprint('once')\n{build}\n"
    (folder / "script.py").write_text(script)
    (folder / "quick_predicate.py").write_text("def keeps(document):\n    return True\n")
    made = recipe(folder, {"kind": "local", "workers": 2}, "quick_predicate:keeps")
    (folder / "recipe.json").write_text(made.model_dump_json())
    result = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "once\n"), result.stderr


def test_the_job_array_asks_for_what_the_recipe_says(folder: Path) -> None:
    step = pytest.importorskip("smelt.corpus.step", reason="needs the extra 'cluster'")
    options = {"account": "us"}
    section = SlurmArray(kind="slurm", partition="cpu", time="2:00:00", memory_gb=8, workers=5, options=options)
    array = step.array(section, folder, 20)
    asked = array.get_sbatch_args(20)
    wanted = {"partition": "cpu", "time": "2:00:00", "mem-per-cpu": "8G", "array": "0-19%5", "account": "us"}
    assert wanted.items() <= asked.items()


def test_without_slurm_a_word_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(InputError, match=r"corpus\.executor: there is no sbatch here; start this on a login node"):
        build_corpus(recipe(folder, {"kind": "slurm", "partition": "main"}), folder / "corpus")


@pytest.mark.parametrize(
    ("answer", "over"),
    [
        ("echo 7 main smelt me R 0:01 1 node", False),
        ("true", True),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", True),
        ("echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1", False),
    ],
    ids=["it runs", "it ended", "it was forgotten", "nobody answers"],
)
def test_a_job_is_over_only_when_slurm_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, over: bool
) -> None:
    (folder / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert clusters._queued(7) == (not over)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["smelt.corpus.worker", "ray::RankWorker"])
def test_ray_does_the_same_though_one_of_its_processes_is_killed(folder: Path, victim: str) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra 'cluster'")
    build_corpus(recipe(folder, {"kind": "local", "workers": 1}), folder / "one")
    try:
        with killing(victim, folder / "artifacts", "texts/*/manifest.json") as killed:
            build_corpus(
                recipe(folder, {"kind": "ray", "memory_gb": 1}), folder / "two", artifacts=folder / "artifacts"
            )
    finally:
        ray.shutdown()
    assert killed
    assert contents(folder / "two") == contents(folder / "one")


@pytest.mark.slow
def test_slurm_does_the_same_though_one_of_its_processes_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import cluster

    build_corpus(recipe(folder, {"kind": "local", "workers": 1}), folder / "one")
    (folder / "slurm").mkdir()
    with cluster(folder / "slurm") as environment:
        for name in ("PATH", "SLURM_CONF"):
            monkeypatch.setenv(name, environment[name])
        made = recipe(folder, {"kind": "slurm", "partition": "main", "time": "10:00", "memory_gb": 1})
        words = f"launch_pickled_pipeline {folder}/artifacts/logs/measure"
        with killing(words, folder / "artifacts", "texts/*/manifest.json") as killed:
            build_corpus(made, folder / "two", artifacts=folder / "artifacts")
    assert killed
    assert contents(folder / "two") == contents(folder / "one")


def test_builds_of_the_same_corpus_at_the_same_time_do_it_once(folder: Path) -> None:
    made = recipe(folder, {"kind": "local", "workers": 1})
    reports: list[Any] = []

    def build() -> None:
        reports.append(build_corpus(made, folder / "corpus", artifacts=folder / "artifacts"))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 3 and reports[0] == reports[1] == reports[2]
    assert not list(folder.glob(".*")) and not list((folder / "artifacts").rglob(".*"))
    scored = [file.stat().st_mtime_ns for file in (folder / "artifacts").glob("scores/*/*.parquet")]
    assert max(scored) < (folder / "corpus" / "manifest.json").stat().st_mtime_ns


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> Iterator[None]:
    """Another build finishes the folder while this one writes a file there, whichever it is."""
    fsync, busy = os.fsync, []

    def finishing(handle: int) -> None:
        fsync(handle)
        if not busy:
            busy.append(True)
            folder.finish(1)
            busy.clear()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", finishing)
        yield


def test_builds_that_share_a_stage_may_finish_it_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the arms of an ablation do, which share their texts."""
    texts, counted = tmp_path / "texts", Folder(tmp_path, "line-counts", ["made from"])
    write_texts(texts, 0, iter([Document("a line of text", "0", "web")]))
    settings = {"folder": str(counted.path), "number": 0, "texts": str(texts), "section": {}}
    task = Task("line counts", "web", settings, (str(counted.path / "00000.json"),))
    task.perform(lambda documents: None)
    counted.finish(1)
    whole = contents(counted.path)
    with meanwhile(monkeypatch, counted):
        task.perform(lambda documents: None)
        counted.finish(1)
    assert contents(counted.path) == whole
    assert not list(counted.path.glob(".*")) and counted.finished


def test_a_file_that_another_build_is_writing_belongs_to_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, "line-counts", ["made from"])
    folder.path.mkdir(parents=True)
    (folder.path / "00000.json").write_text("{}")
    (folder.path / ".00000.lines.0badcafe").write_text("half of it")
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(()))  # it was not there yet when others were removed
    folder.finish(1)
    assert list(read_json(folder.path / "manifest.json")["files"]) == ["00000.json"]


@pytest.mark.parametrize("step", ["mkdir", "open"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def denied(*args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, step, denied)
    said = r"artifacts: cannot be written \(Permission denied\); choose a writable folder$"
    with pytest.raises(InputError, match=said), alone(tmp_path / "artifacts" / ".lock"):
        pass
