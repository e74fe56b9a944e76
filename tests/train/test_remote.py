"""Uploads: verified copies elsewhere, outages that lose nothing, and runs that go on with an empty local disk."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import saves

from smelt.dataset.shards import open_sources
from smelt.errors import InputError
from smelt.files import check_directory
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import train_run
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.checkpoints import Checkpoints
from smelt.train import uploading
from smelt.train.checkpoints import checkpoint_path, checkpoints
from smelt.train.records import append, rows
from smelt.train.remote import Remote
from smelt.train.retention import Retention
from smelt.train.saving import Saver


@pytest.fixture(scope="module")
def made(workshop, tmp_path_factory) -> Any:
    """A run's recipe and tokenizer, and how it saves some steps."""
    folder = tmp_path_factory.mktemp("tokenizer")
    prepare(workshop.load("tiny"), workshop.project).tokenizer.save(folder)
    return lambda seed=0: saves.Run(workshop.load("kept"), folder, seed)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "kept").mkdir(parents=True)
    return tmp_path / "runs" / "kept"


class Server:
    """A local S3 server that can go away and come back with what it held."""

    url = ""  # of a bucket made for one test

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._make = ThreadedMotoServer
        self._server: Any = None
        self.start(0)

    def start(self, port: int | None = None) -> None:
        self._server = self._make(ip_address="127.0.0.1", port=self.port if port is None else port, verbose=False)
        self._server.start()
        self.port: int = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def s3(monkeypatch, tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = tmp_path.name.replace("_", "-")
    s3fs.S3FileSystem().mkdir(bucket)
    server.url = f"s3://{bucket}/runs"
    monkeypatch.setattr(uploading, "_FIRST_WAIT", 0.05)
    yield server
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def kinds(run: Path) -> list[str]:
    return [row["kind"] for row in rows(run / "events.jsonl")]


def names(run: Path) -> list[int]:
    return [int(path.name[-8:]) for path in checkpoints(run)]


def save(saver: Saver, training: saves.Run, steps: int = 1) -> None:
    for _ in range(steps):
        training.step()
        saver.save(training.snapshot())


def test_uploaded_read_back_and_only_then_removed_here(made, run, s3) -> None:
    """INFRA-13: local copies go only after a verified upload; resume falls back to the remote."""
    section = Checkpoints(keep=1, upload=s3.url)
    saver, training = Saver(run, section, saves.Alone()), made()
    append(run / "metrics.jsonl", {"step": 1, "loss": 2.5})
    save(saver, training, 3)
    saver.close(done=True)
    assert names(run) == [3]
    assert kinds(run).count("upload") == 3
    remote = Remote(s3.url, "kept")
    assert remote.steps() == [1, 2, 3]
    expected = training.tensors()

    shutil.rmtree(run)
    again, resumed = Saver(run, section, saves.Alone()), made(seed=1)
    path = again.newest()
    assert path == checkpoint_path(run, 3)
    check_directory(path)
    resumed.load(path)
    found = resumed.tensors()
    assert all((found[name] == expected[name]).all() for name in expected)
    assert list(rows(run / "metrics.jsonl")) == [{"step": 1, "loss": 2.5}]
    again.close(done=True)
    assert kinds(run).count("upload") >= 2  # what had been sent before is not sent again
    assert kinds(run)[-1] == "fetch"


def test_an_outage_in_the_middle_loses_nothing_and_stops_nothing(made, run, s3, monkeypatch) -> None:
    put, puts = Remote._put, []

    def put_until_the_server_goes(self: Remote, file: Path, to: str) -> None:
        if "step-00000002" in to:
            puts.append(to)
            if len(puts) == 3:
                s3.stop()
        put(self, file, to)

    monkeypatch.setattr(Remote, "_put", put_until_the_server_goes)
    said: list[str] = []
    saver, training = Saver(run, Checkpoints(keep=1, upload=s3.url), saves.Alone(), said.append), made()
    save(saver, training)
    wait_until(lambda: "upload" in kinds(run))
    save(saver, training)
    wait_until(lambda: "upload_failed" in kinds(run))
    save(saver, training)
    wait_until(lambda: names(run)[-1] == 3)
    assert 2 in names(run)
    s3.start()
    saver.close(done=True)
    assert names(run) == [3]
    assert Remote(s3.url, "kept").steps() == [1, 2, 3]
    assert kinds(run).count("upload_failed") == 1
    assert "trying again" in said[0]


def test_a_run_that_ends_in_an_outage_says_so_and_sends_the_rest_later(made, run, s3, monkeypatch) -> None:
    monkeypatch.setattr(uploading, "_PATIENCE", 0.1)
    section = Checkpoints(upload=s3.url)
    saver, training = Saver(run, section, saves.Alone()), made()
    s3.stop()
    save(saver, training)
    with pytest.raises(InputError, match=r"1 checkpoints are not yet at s3://.*/runs/kept .*with --resume"):
        saver.close(done=True)
    assert names(run) == [1]
    s3.start()
    Saver(run, section, saves.Alone()).close(done=True)
    assert Remote(s3.url, "kept").steps() == [1]


def test_a_copy_that_differs_from_what_was_sent_is_sent_again(made, run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(uploading, "_FIRST_WAIT", 0.01)
    put, spoiled = Remote._put, []

    def spoil(self: Remote, file: Path, to: str) -> None:
        put(self, file, to)
        if file.name == "model.safetensors" and not spoiled:
            spoiled.append(to)
            Path(to).write_bytes(Path(to).read_bytes()[:-4] + b"oops")

    monkeypatch.setattr(Remote, "_put", spoil)
    saver, training = Saver(run, Checkpoints(upload=str(tmp_path / "there")), saves.Alone()), made()
    save(saver, training)
    saver.close(done=True)
    assert spoiled
    assert kinds(run) == ["checkpoint", "upload_failed", "upload"]
    check_directory(tmp_path / "there" / "kept" / "step-00000001")


def test_a_disk_that_has_no_room_for_a_line_does_not_end_the_uploads(made, run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(uploading, "_FIRST_WAIT", 0.01)
    tell, full = uploading.event, []

    def told_once_there_is_room(*args: Any, **fields: Any) -> None:
        if not full:
            full.append(fields)
            raise InputError("events.jsonl: the disk is full")
        tell(*args, **fields)

    monkeypatch.setattr(uploading, "event", told_once_there_is_room)
    said: list[str] = []
    section = Checkpoints(keep=1, upload=str(tmp_path / "there"))
    saver, training = Saver(run, section, saves.Alone(), said.append), made()
    save(saver, training)
    wait_until(lambda: said)
    assert "the disk is full); trying again" in said[0]
    save(saver, training)
    saver.close(done=True)
    assert full and names(run) == [2]
    assert Remote(str(tmp_path / "there"), "kept").steps() == [1, 2]


def test_a_checkpoint_that_retention_has_just_taken_had_been_sent(made, run, tmp_path) -> None:
    saver, training = Saver(run, Checkpoints(), saves.Alone()), made()
    save(saver, training)
    saver.close(done=True)
    remote = Remote(str(tmp_path / "there"), "kept")
    uploader = uploading.Uploader(remote, run, Retention(run, Checkpoints()), print)
    uploader.note(checkpoint_path(run, 1))
    shutil.rmtree(checkpoint_path(run, 1))
    assert uploader.sent(checkpoint_path(run, 1)) and not uploader.sent(checkpoint_path(run, 2))


def test_records_that_were_cut_short_on_their_way_are_fetched_again(run, tmp_path, monkeypatch) -> None:
    there = tmp_path / "there"
    (there / "kept").mkdir(parents=True)
    (there / "kept" / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    remote = Remote(str(there), "kept")

    def half(path: str, to: str) -> None:
        Path(to).write_text(Path(path).read_text()[:14])
        raise ConnectionError("gone")

    with monkeypatch.context() as cut, pytest.raises(ConnectionError):
        cut.setattr(remote._files, "get_file", half)
        remote.fetch_records(run)
    assert not list(rows(run / "metrics.jsonl"))
    remote.fetch_records(run)
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == [1, 2]


def test_a_recipe_that_is_refused_is_not_called_a_damaged_checkpoint(made, run, tmp_path) -> None:
    section = Checkpoints(upload=str(tmp_path / "there"))
    saver, training = Saver(run, section, saves.Alone()), made()
    save(saver, training)
    saver.close(done=True)
    shutil.rmtree(run)

    def refuse(recipe: Recipe, step: int) -> bool:
        raise InputError("amendments.0: restore it")

    with pytest.raises(InputError, match=r"^amendments\.0: restore it"):
        Saver(run, section, saves.Alone()).newest(refuse)
    assert "fallback" not in kinds(run)


def test_an_upload_cut_short_is_no_checkpoint(made, run, tmp_path) -> None:
    there = tmp_path / "there"
    saver, training = Saver(run, Checkpoints(upload=str(there)), saves.Alone()), made()
    save(saver, training, 2)
    saver.close(done=True)
    (there / "kept" / "step-00000002" / "manifest.json").unlink()
    shutil.rmtree(run)
    assert Saver(run, Checkpoints(upload=str(there)), saves.Alone()).newest() == checkpoint_path(run, 1)


def test_a_checkpoint_damaged_here_is_fetched_whole_from_there(made, run, tmp_path) -> None:
    section = Checkpoints(upload=str(tmp_path / "there"))
    saver, training = Saver(run, section, saves.Alone()), made()
    save(saver, training, 2)
    saver.close(done=True)
    (checkpoint_path(run, 2) / "optimizer.safetensors").write_bytes(b"")
    assert Saver(run, section, saves.Alone()).newest() == checkpoint_path(run, 2)
    check_directory(checkpoint_path(run, 2))
    assert kinds(run)[-2:] == ["fallback", "fetch"]


def test_a_copy_damaged_there_is_passed_over(made, run, tmp_path) -> None:
    section = Checkpoints(upload=str(tmp_path / "there"))
    saver, training = Saver(run, section, saves.Alone()), made()
    save(saver, training, 2)
    saver.close(done=True)
    shutil.rmtree(run)
    (tmp_path / "there" / "kept" / "step-00000002" / "optimizer.safetensors").write_bytes(b"")
    assert Saver(run, section, saves.Alone()).newest() == checkpoint_path(run, 1)
    assert kinds(run)[0] == "checkpoint"  # the events of the life before came back first
    assert kinds(run)[-2:] == ["fallback", "fetch"]


def test_a_checkpoint_damaged_before_it_was_sent_is_told_of_and_kept(made, run, tmp_path) -> None:
    saver, training = Saver(run, Checkpoints(keep=1), saves.Alone()), made()
    save(saver, training)
    saver.close(done=True)
    file = checkpoint_path(run, 1) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"oops")
    saver = Saver(run, Checkpoints(keep=1, upload=str(tmp_path / "there")), saves.Alone())
    save(saver, training)
    saver.close(done=True)
    assert names(run) == [1, 2]
    assert "upload_failed" in kinds(run)
    assert Remote(str(tmp_path / "there"), "kept").steps() == [2]


def test_while_the_remote_is_away_a_run_goes_on_from_what_is_here_or_not_at_all(made, run, s3) -> None:
    section, said = Checkpoints(upload=s3.url), []
    saver, training = Saver(run, Checkpoints(), saves.Alone()), made()
    save(saver, training)
    saver.close(done=True)
    s3.stop()
    assert Saver(run, section, saves.Alone(), said.append).newest() == checkpoint_path(run, 1)
    assert "going on from what is here" in said[0]
    shutil.rmtree(run)
    with pytest.raises(InputError, match=r"train\.checkpoints\.upload: s3://.*/runs/kept cannot be read"):
        Saver(run, section, saves.Alone()).newest()
    s3.start()
    assert Saver(run, section, saves.Alone()).newest() is None


def test_a_name_that_is_taken_there_is_known_before_anything_starts(made, run, tmp_path) -> None:
    section = Checkpoints(upload=str(tmp_path / "there"))
    saver, training = Saver(run, section, saves.Alone()), made()
    assert not saver.taken()
    save(saver, training)
    saver.close(done=True)
    shutil.rmtree(run)
    assert Saver(run, section, saves.Alone()).taken()


def test_another_target_gets_everything_that_is_here(made, run, tmp_path) -> None:
    saver, training = Saver(run, Checkpoints(upload=str(tmp_path / "one")), saves.Alone()), made()
    save(saver, training, 2)
    saver.close(done=True)
    Saver(run, Checkpoints(upload=str(tmp_path / "two")), saves.Alone()).close(done=True)
    assert Remote(str(tmp_path / "two"), "kept").steps() == [1, 2]
    assert json.loads((run / "uploaded.json").read_text())["url"] == str(tmp_path / "two" / "kept")


def test_a_target_that_cannot_be_written_to_stops_a_run_before_it_starts(run, s3) -> None:
    with pytest.raises(InputError, match=r"train\.checkpoints\.upload: s3://no-such-bucket/kept cannot be used"):
        Saver(run, Checkpoints(upload="s3://no-such-bucket"), saves.Alone()).taken()


@pytest.mark.parametrize("url", ["nowhere://bucket", "s4://bucket/runs"])
def test_an_unknown_kind_of_target_is_one_line(run, url: str) -> None:
    with pytest.raises(InputError, match=r"train\.checkpoints\.upload: cannot use .*://"):
        Saver(run, Checkpoints(upload=url), saves.Alone())


def test_ranks_upload_and_fetch_as_one(workshop, made, run, tmp_path, pool) -> None:
    tokenizer = tmp_path / "tokenizer"
    prepare(workshop.load("tiny"), workshop.project).tokenizer.save(tokenizer)
    there = str(tmp_path / "there")
    before = pool(2, saves.uploaded_after, workshop.load("kept"), tokenizer, run, there)
    shutil.rmtree(run)
    after = pool(4, saves.fetched, workshop.load("kept"), tokenizer, run, there)
    assert all((each[name] == before[0][name]).all() for each in after for name in before[0])


def test_a_run_goes_on_with_an_empty_disk_as_if_nothing_had_happened(workshop, s3) -> None:
    """INFRA-13, MARA-15."""
    constant = ("train.schedule={kind: wsd, warmup_steps: 2, decay_fraction: 0}", "evals.tasks=[]")
    near = train(workshop, workshop.load("near", *constant))
    upload = (*constant, f"train.checkpoints.upload={s3.url}", "train.checkpoints.keep=1")
    first_stage = "train.stages=[{name: one, steps: 12, mixture: {docs: 0.5, math: 0.5}}]"
    far = train(workshop, workshop.load("far", *upload, first_stage))
    assert names(far) == [12]
    shutil.rmtree(far)
    whole = workshop.load("far", *upload)
    with pytest.raises(InputError, match="exists already; add --resume"):
        train(workshop, whole)
    train(workshop, whole, resume=True)
    assert names(far) == [20]
    losses = [[(row["step"], row["loss"]) for row in rows(run / "metrics.jsonl")] for run in (near, far)]
    assert losses[0] == losses[1]
    weights = [(checkpoint_path(run, 20) / "model.safetensors").read_bytes() for run in (near, far)]
    assert weights[0] == weights[1]


def train(workshop, recipe: Recipe, resume: bool = False) -> Path:
    """Train a recipe; its run."""
    run = workshop.project / "runs" / recipe.name
    ready = prepare(recipe, workshop.project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    assert train_run(recipe, run, ready.tokenizer, sources, resume=resume).done
    return run


def wait_until(true: Any) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("waited 20 seconds")
