"""`smelt export --average`: the average that a run keeps, or the mean of its last checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smelt.errors import InputError
from smelt.lifecycle.export import export_checkpoint
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.model.load import load_model
from smelt.recipe.load import load_recipe
from smelt.train.checkpoints import checkpoints

SHORT = ("train.stages.0.steps=3", "train.stages.1.steps=2", "evals.tasks=[]")


def trained(workshop: Any, name: str, *changes: str) -> list[Path]:
    """The checkpoints of a run that saves every step."""
    recipe = workshop.load(name, *SHORT, "train.checkpoints={every_steps: 1, keep: 9}", *changes)
    run = workshop.project / "runs" / name
    pretrain(recipe, workshop.project, resume=False, steps=Steps(run / "timings.json", lambda text: None))
    return checkpoints(run)


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in load_model(folder).named_parameters()}


def test_the_running_average_of_a_run_is_exported(workshop, tmp_path: Path) -> None:
    saved = trained(workshop, "followed", "train.averaging={kind: ema, decay: 0.6}")
    expected = weights(saved[0])
    for each in map(weights, saved[1:]):
        expected = {name: average.lerp(each[name], 1 - 0.6) for name, average in expected.items()}
    export_checkpoint(saved[-1], tmp_path / "average", average=True, check=True)
    export_checkpoint(saved[-1], tmp_path / "plain")
    found, plain = weights(tmp_path / "average"), weights(tmp_path / "plain")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)
        assert torch.equal(plain[name], weights(saved[-1])[name])
    assert not torch.equal(plain["embedding.weight"], found["embedding.weight"])


def test_the_mean_of_the_last_checkpoints_is_exported(workshop, tmp_path: Path) -> None:
    saved = trained(workshop, "soup", "train.averaging={kind: soup, last: 3}")
    last = [weights(path) for path in saved[1:4]]
    workshop_answer = workshop.smelt("export", saved[3], tmp_path / "soup", "--average")
    assert workshop_answer.returncode == 0, workshop_answer.stderr
    for name, tensor in weights(tmp_path / "soup").items():
        expected = torch.stack([each[name] for each in last]).double().mean(0).float()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-7)
    with pytest.raises(InputError, match="last 3 checkpoints of a run, but only 2 are beside it"):
        export_checkpoint(saved[1], tmp_path / "early", average=True)
    shutil.copytree(saved[-1], tmp_path / "checkpoints" / "elsewhere")
    with pytest.raises(InputError, match="only 0 are beside it"):
        export_checkpoint(tmp_path / "checkpoints" / "elsewhere", tmp_path / "out", average=True)
    recipe = saved[-1] / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("kind: soup", "kind: ema").replace("last: 3", "decay: 0.9"))
    (saved[-1] / "manifest.json").unlink()
    with pytest.raises(InputError, match="holds no average yet"):
        export_checkpoint(saved[-1], tmp_path / "out", average=True)


def test_a_recipe_without_averaging_has_none_to_export(workshop, tmp_path: Path) -> None:
    saved = trained(workshop, "plainly")
    answer = workshop.smelt("export", saved[-1], tmp_path / "out", "--average")
    assert answer.returncode == 2 and "no train.averaging" in answer.stderr and "Traceback" not in answer.stderr
    assert not (tmp_path / "out").exists()


def test_more_checkpoints_than_a_run_keeps_cannot_be_averaged(workshop) -> None:
    with pytest.raises(InputError, match=r"train.averaging.last: 4 checkpoints cannot be averaged .* raise that"):
        load_recipe(workshop.recipe, ["train.averaging={kind: soup, last: 4}", "train.checkpoints.keep=3"])
