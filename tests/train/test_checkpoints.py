"""Checkpoints: whole or absent, saved in any layout and read in any other, while training goes on."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import saves
import torch
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard

from smelt.errors import InputError
from smelt.files import check_directory
from smelt.lifecycle.artifacts import prepare
from smelt.lifecycle.export import export_checkpoint
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.load import load_model
from smelt.model.tensor_files import TensorFolder
from smelt.recipe.sections.checkpoints import Checkpoints
from smelt.recipe.sections.model import Model
from smelt.train.checkpoints import checkpoint_path, checkpoints, load_parameters, load_state
from smelt.train.records import rows
from smelt.train.retention import Retention
from smelt.train.saving import Saver
from smelt.train.together import Together


@pytest.fixture(scope="module")
def tokenizer(workshop, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    prepare(workshop.load("tiny"), workshop.project).tokenizer.save(folder)
    return folder


@pytest.fixture
def recipe(workshop):
    return workshop.load("saved")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_one_process_writes_whole_files_that_any_reader_of_safetensors_reads(recipe, tokenizer, run) -> None:
    expected = saves.saved_after(recipe, tokenizer, run, 2)
    path = checkpoint_path(run, 2)
    names = {"manifest.json", "model.json", "model.safetensors", "optimizer.safetensors", "recipe.yaml", "state.json"}
    assert {each.name for each in path.iterdir()} == {*names, "tokenizer"}
    assert check_directory(path)["step"] == 2
    found = {**load_file(path / "model.safetensors"), **load_file(path / "optimizer.safetensors")}
    found.pop("skip.seen")
    assert equal(found, expected)


@pytest.mark.parametrize(("writers", "readers"), [(1, 4), (4, 2), (4, 1), (2, 4)])
def test_any_layout_loads_what_any_other_saved(recipe, tokenizer, run, pool, writers: int, readers: int) -> None:
    """INFRA-13, MARA-15: nothing is lost or rounded on the way, in the optimizer's state neither."""
    written = pool(writers, saves.saved_after, recipe, tokenizer, run, 2)
    read = pool(readers, saves.loaded, recipe, tokenizer, checkpoint_path(run, 2))
    assert all(equal(written[0], each) for each in [*written, *read])


def test_ranks_write_their_own_parts_and_nothing_twice(recipe, tokenizer, run, pool) -> None:
    pool(4, saves.saved_after, recipe, tokenizer, run, 1)
    path = checkpoint_path(run, 1)
    check_directory(path)
    files = [path / f"{stem}.rank-{rank:05}.safetensors" for rank in range(4) for stem in ("model", "optimizer")]
    whole = sum(spec.bytes for stem in ("model", "optimizer") for spec in TensorFolder(path, stem).specs.values())
    stored = [sum(each.nbytes for each in load_file(file).values()) for file in files]
    assert sum(stored) == whole
    assert max(stored[::2]) < 1.2 * min(stored[::2])


def test_a_sharded_checkpoint_is_a_model_for_every_reader(recipe, tokenizer, run, pool, tmp_path) -> None:
    expected = pool(4, saves.saved_after, recipe, tokenizer, run, 1)[0]
    path = checkpoint_path(run, 1)
    model = load_model(path)
    assert equal(dict(model.state_dict()), {name: expected[name] for name in model.state_dict()})
    export_checkpoint(path, tmp_path / "exported")
    exported = load_model(tmp_path / "exported")
    assert equal(dict(exported.state_dict()), dict(model.state_dict()))
    stored = TensorFolder(path)
    name = "layers.0.feedforward.gate.weight"
    assert name in stored.specs
    assert torch.equal(stored.read(name, entry=3), expected[name][3])


def save_and_load(run: Path, layouts) -> bool:
    """Save numbered tensors in one layout each, load them into others; whether the numbers are the same."""
    mesh = init_device_mesh("cpu", (2, 2))
    made = {f"t{i}": saves.numbered(mesh, before, shape) for i, (before, _, shape) in enumerate(layouts)}
    saver = Saver(run, Checkpoints(), saves.world())
    saves.save_tensors(saver, made)
    other = {f"t{i}": saves.numbered(mesh, after, shape) * 0 - 1 for i, (_, after, shape) in enumerate(layouts)}
    load_parameters(checkpoint_path(run, 0), other)
    return all(torch.equal(saves.whole(other[name]), saves.whole(made[name])) for name in made)


R, S0, S1 = Replicate(), Shard(0), Shard(1)


def test_every_nesting_of_shards_even_uneven_and_empty_ones(run, pool) -> None:
    layouts = [
        ((S0, R), (R, S0), (7, 3)),
        ((S0, S1), (S1, S0), (5, 6)),
        ((S0, S0), (R, R), (5, 2)),
        ((R, S1), (S0, S0), (3, 9)),
        ((S0, S0), (S1, S1), (3, 1)),
        ((R, R), (S0, S1), (4, 4)),
        ((S1, R), (S0, R), (2, 8, 3)),
        ((S0, R), (R, R), (9,)),
    ]
    assert all(pool(4, save_and_load, run, layouts))


def save_nested(run: Path) -> None:
    module = saves.nested()
    saves.save_tensors(Saver(run, Checkpoints(), saves.world()), dict(module.named_parameters()))


def test_fsdp_within_tensor_parallel_halves_is_put_together_again(run, pool) -> None:
    pool(4, save_nested, run)
    stored = TensorFolder(checkpoint_path(run, 0))
    assert len(stored.specs) == 4
    for name, spec in stored.specs.items():
        assert torch.equal(stored.read(name), torch.arange(float(spec.bytes // 4)).view(spec.shape))


def pass_on(run: Path, step: int, layout, model) -> bool:
    """Load the checkpoint of the step before into a model in `layout` that began otherwise, and save it again."""
    engine, world = reference.engine_of(layout, model, torch.float32)
    parameters = {name: parameter.detach() for name, parameter in engine.named_parameters()}
    state = {f"exp_avg.{name}": parameter * 2 for name, parameter in parameters.items()}
    state |= {f"step.{name}": torch.tensor(7.0) for name in parameters}
    if step:
        for each in parameters.values():
            each.zero_()
        load_parameters(checkpoint_path(run, step - 1), parameters)
        loaded = load_state(checkpoint_path(run, step - 1), parameters)
        assert loaded.keys() == state.keys()
        assert all(type(loaded[name]) is type(state[name]) for name in state)
        state = loaded
    saver = Saver(run, Checkpoints(), world)
    saves.save_tensors(saver, parameters, state, step)
    return True


MOE = {"kind": "moe", "experts": 4, "top_k": 2, "width": 16}
MODELS = {"dense": reference.DENSE, "experts": {**reference.DENSE, "tie_embeddings": False, "feedforward": MOE}}
CHAINS = {
    "dense": [
        (4, {"tensor": 2, "sequence_parallel": True, "zero": 3}),
        (4, {"pipeline": 2, "tensor": 2}),
        (4, {"replicate": 2, "zero": 2}),
        (4, {"context": 2, "tensor": 2, "sequence_parallel": True}),
        (2, {"pipeline": 2}),
    ],
    "experts": [
        (4, {"expert": 2, "tensor": 2}),
        (4, {"pipeline": 2, "zero": 1}),
        (4, {"expert": 4, "context": 2}),
        (2, {"expert": 2, "tensor": 2, "sequence_parallel": True}),
    ],
}


@pytest.mark.parametrize("kind", CHAINS)
def test_weights_and_state_go_through_every_kind_of_parallelism_unchanged(run, pool, kind: str) -> None:
    """MARA-15: a checkpoint of any layout goes on in any other."""
    model = MODELS[kind]
    for step, (ranks, layout) in enumerate(CHAINS[kind]):
        assert all(pool(ranks, pass_on, run, step, layout, model))
    expected = Decoder(Model.model_validate(model), reference.VOCAB)
    initialise(expected, 0)
    path = checkpoint_path(run, len(CHAINS[kind]) - 1)
    weights, state = TensorFolder(path), TensorFolder(path, "optimizer")
    assert set(weights.specs) == {name for name, _ in expected.named_parameters()}
    for name, parameter in expected.named_parameters():
        assert torch.equal(weights.read(name), parameter)
        assert torch.equal(state.read(f"exp_avg.{name}"), 2 * parameter)
        assert state.read(f"step.{name}").item() == 7


def test_a_disk_that_is_full_for_one_rank_costs_that_checkpoint_and_no_more(recipe, tokenizer, run, pool) -> None:
    said = pool(2, saves.disk_full_on_the_last_rank, recipe, tokenizer, run)
    assert "the checkpoint of step 1 was not saved" in said[0][0][0] and "disk is full" in said[0][0][0]
    assert said[0][1] == []
    assert [path.name for path in checkpoints(run)] == ["step-00000002"]
    kinds = [(row["kind"], row["step"]) for row in rows(run / "events.jsonl")]
    assert kinds == [("checkpoint_failed", 1), ("checkpoint", 2)]


def test_the_last_save_of_a_run_that_fails_is_an_error(recipe, tokenizer, run, monkeypatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    made = saves.Run(recipe, tokenizer)
    saver = Saver(run, Checkpoints(), saves.Alone())
    monkeypatch.setattr(saves.StagedFile, "write", full)
    saver.save(made.snapshot())
    with pytest.raises(InputError, match="the disk is full; free some space"):
        saver.close(done=True)
    assert not list((run / "checkpoints").iterdir())


def test_a_process_killed_while_it_writes_leaves_the_checkpoint_before(recipe, tokenizer, run) -> None:
    """INFRA-13: a crash in the middle of a save never leaves a torn checkpoint that can be loaded."""
    script = "import pickle, sys, saves; saves.killed_while_writing(*pickle.load(sys.stdin.buffer), 0)"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, input=pickle.dumps((recipe, tokenizer, run)), cwd=Path(saves.__file__).parent)
    assert ended.returncode == -9
    assert len(list((run / "checkpoints").iterdir())) == 2
    assert saves.newest(run) == "step-00000001"
    assert [each.name for each in (run / "checkpoints").iterdir()] == ["step-00000001"]


@pytest.mark.slow
def test_a_rank_killed_while_it_writes_leaves_the_checkpoint_before(recipe, tokenizer, run, pool) -> None:
    """INFRA-13, for several ranks."""
    with pytest.raises(RuntimeError):
        pool(2, saves.killed_while_writing, recipe, tokenizer, run, 1)
    assert pool(2, saves.newest, run) == ["step-00000001"] * 2


def test_the_ranks_find_a_damaged_file_whoever_checks_it(recipe, tokenizer, run, pool) -> None:
    pool(2, saves.saved_after, recipe, tokenizer, run, 1)
    pool(2, saves.saved_after, recipe, tokenizer, run, 2)
    file = checkpoint_path(run, 2) / "optimizer.rank-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert pool(2, saves.newest, run) == ["step-00000001"] * 2
    assert "optimizer.rank-00001" in list(rows(run / "events.jsonl"))[-1]["reason"]


def test_a_checkpoint_whose_recipe_is_damaged_is_passed_over(recipe, tokenizer, run) -> None:
    for steps in (1, 2):
        saves.saved_after(recipe, tokenizer, run, steps)
    (checkpoint_path(run, 2) / "recipe.yaml").write_text("name: [")
    assert saves.newest(run) == "step-00000001"
    assert "recipe.yaml" in list(rows(run / "events.jsonl"))[-1]["reason"]


def test_a_fault_of_ours_on_a_rank_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="rank 0: ZeroDivisionError") as caught:
        Together(saves.Alone()).each(lambda: 1 // 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_damaged_piece_or_index_is_one_line(recipe, tokenizer, run, pool) -> None:
    pool(2, saves.saved_after, recipe, tokenizer, run, 1)
    path = checkpoint_path(run, 1)
    file = path / "model.rank-00001.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is cut off"):
        load_model(path)
    file.unlink()
    with pytest.raises(InputError, match="no such file"):
        load_model(path)
    index = json.loads((path / "model.pieces.json").read_text())
    del next(iter(index["tensors"].values()))["pieces"][0]["offset"]
    (path / "model.pieces.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="not an index of pieces"):
        load_model(path)


def test_a_rewound_run_goes_on_from_the_newest_checkpoint_that_it_accepts(recipe, tokenizer, run) -> None:
    for steps in (1, 2, 3):
        saves.saved_after(recipe, tokenizer, run, steps)
    asked = []

    def accept(its, step: int) -> bool:
        asked.append((its.name, step))
        return step <= 2

    found = Saver(run, Checkpoints(), saves.Alone()).newest(accept)
    assert found == checkpoint_path(run, 2)
    assert asked == [("saved", 3), ("saved", 2)]


def made_at(run: Path, *steps: int, life: int = 0) -> None:
    for step in steps:
        path = checkpoint_path(run, step)
        path.mkdir(parents=True)
        (path / "manifest.json").write_text(json.dumps({"life": life, "files": {}}))


def names(run: Path) -> list[int]:
    return [int(path.name[-8:]) for path in checkpoints(run)]


def test_retention_keeps_the_newest_every_mth_and_what_is_held(run) -> None:
    made_at(run, *range(100, 1100, 100))
    retention = Retention(run, Checkpoints(keep=2, keep_every=400))
    retention.hold(checkpoint_path(run, 300))
    retention.prune(lambda path: path != checkpoint_path(run, 700))
    assert names(run) == [300, 400, 700, 800, 900, 1000]
    retention.release(checkpoint_path(run, 300))
    retention.prune(lambda path: True)
    assert names(run) == [400, 800, 900, 1000]


def test_retention_after_a_rewind_counts_what_was_made_last_as_newest(run) -> None:
    """MARA-12: the steps that a run was rewound over are not kept in place of the new ones."""
    made_at(run, 700, 800, 900)
    made_at(run, 300, 400, life=1)
    Retention(run, Checkpoints(keep=2)).prune(lambda path: True)
    assert names(run) == [300, 400]


def test_a_removal_that_the_disk_refuses_or_a_crash_cuts_short_is_finished_later(run, monkeypatch) -> None:
    """As on NFS, where a folder stays while a file in it is open elsewhere: no run ends, no torn checkpoint is seen."""

    def busy(*args: object, **options: object) -> None:
        raise OSError(39, "Directory not empty")

    made_at(run, 1, 2)
    retention = Retention(run, Checkpoints(keep=1))
    with monkeypatch.context() as nfs:
        nfs.setattr(os, "rmdir", busy)
        retention.prune(lambda path: True)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left[0].startswith(".step-00000001.") and left[1:] == ["step-00000002"]
    retention.clear_unfinished()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]


def test_retention_touches_nothing_but_its_own_checkpoints(run, tmp_path) -> None:
    """INFRA-13: whatever else lies in the folder, or is linked into it, stays."""
    made_at(tmp_path / "other", 100)
    made_at(run, 200, 300)
    (run / "checkpoints" / "step-00000100").symlink_to(checkpoint_path(tmp_path / "other", 100))
    (run / "checkpoints" / "notes").mkdir()
    retention = Retention(run, Checkpoints(keep=1))
    retention.prune(lambda path: True)
    retention.clear_unfinished()
    assert sorted(each.name for each in (run / "checkpoints").iterdir()) == ["notes", "step-00000300"]
    assert names(tmp_path / "other") == [100]
    with pytest.raises(AssertionError), retention.replacing(checkpoint_path(tmp_path / "other", 100)):
        pass
    assert names(tmp_path / "other") == [100]


def test_a_checkpoint_in_place_of_another_replaces_it_only_when_it_is_whole(recipe, tokenizer, run) -> None:
    saves.saved_after(recipe, tokenizer, run, 1)
    before = (checkpoint_path(run, 1) / "manifest.json").read_bytes()
    retention = Retention(run, Checkpoints())
    with pytest.raises(ZeroDivisionError), retention.replacing(checkpoint_path(run, 1)):
        1 / 0  # noqa: B018
    assert (checkpoint_path(run, 1) / "manifest.json").read_bytes() == before
    with retention.replacing(checkpoint_path(run, 1)) as folder:
        (folder / "manifest.json").write_text("{}")
    assert (checkpoint_path(run, 1) / "manifest.json").read_text() == "{}"
