"""The ablation recipes run: a few steps of each, on a little of the demo's data."""

import math
from pathlib import Path

import pytest

from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.recipe.load import load_recipe
from smelt.train.records import rows

ABLATIONS = Path(__file__).parents[2] / "recipes" / "ablations"
LITTLE = (
    "corpus.sources.docs.documents=200",
    "corpus.sources.code.documents=20",
    "corpus.sources.math.read.documents=300",
    "train.stages.0.steps=3",
    "train.stages.1.steps=2",
    "train.log_every_steps=1",
    "evals.tasks=[]",
    "infra.device=cpu",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in ABLATIONS.glob("*.yaml")))
def test_an_ablation_runs(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """ARCH-05, ARCH-07, ARCH-08, ARCH-11, ARCH-15, ARCH-16, ARCH-19, ARCH-22, ARCH-23, ARCH-26, OPT-04."""
    project = tmp_path_factory.getbasetemp() / "ablations"
    recipe = load_recipe(ABLATIONS / f"{name}.yaml", LITTLE)
    pretrain(recipe, project, resume=False, steps=Steps(project / f"{name}.json", lambda text: None))
    losses = [row["loss"] for row in rows(project / "runs" / name / "metrics.jsonl")]
    assert len(losses) == 5
    assert losses[-1] < losses[0] < 1.3 * math.log(1024)
