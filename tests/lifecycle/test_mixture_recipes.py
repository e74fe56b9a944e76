"""The recipes of recipes/mixtures that compare mixtures run: a few steps of each, on a little of the demo's data."""

import math
from pathlib import Path

import pytest

from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.recipe.load import load_recipe
from smelt.train.records import rows

MIXTURES = Path(__file__).parents[2] / "recipes" / "mixtures"
PUBLISHED = {"smollm3", "smollm3-classes"}  # whose shards are not here
NAMES = sorted(
    {path.stem for path in MIXTURES.glob("*.yaml")} - PUBLISHED, key=lambda name: (name != "anneal-trunk", name)
)
LITTLE = (
    "corpus.sources.docs.documents=200",
    "corpus.sources.code.documents=20",
    "corpus.sources.math.read.documents=300",
    "train.log_every_steps=1",
    "train.checkpoints={every_steps: 2, keep: 9}",
    "evals={tasks: [], every_steps: 100, validation_bytes: 500}",
    "infra.device=cpu",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_mixtures_runs(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """DATA-09, DATA-10, DATA-11, DATA-12, DATA-13, TOK-08."""
    project = tmp_path_factory.getbasetemp() / "mixtures"
    plain = load_recipe(MIXTURES / f"{name}.yaml")
    stages = plain.section("train").stages
    lengths = [f"train.stages.{index}.steps={4 if len(stages) == 1 else 2}" for index in range(len(stages))]
    from_two = ["train.from.step=2"] if plain.section("train").trunk else []
    recipe = load_recipe(MIXTURES / f"{name}.yaml", [*LITTLE, *lengths, *from_two])
    pretrain(recipe, project, resume=False, steps=Steps(project / f"{name}.json", lambda text: None))
    losses = [row["loss"] for row in rows(project / "runs" / name / "metrics.jsonl")]
    assert len(losses) == 4
    assert losses[-1] < losses[0] < 1.3 * math.log(4096)
