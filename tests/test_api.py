"""The same few functions for notebooks and scripts, at the top of the package."""

from pathlib import Path

import pytest

import smelt


@pytest.mark.parametrize("name", smelt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(smelt, name)


def test_a_script_trains_loads_generates_scores_and_plots(workshop) -> None:
    recipe = smelt.load_recipe(workshop.recipe, ["name=script", "train.stages.0.steps=2", "train.stages.1.steps=2"])
    run = smelt.train(recipe, workshop.project)
    checkpoint = run / "checkpoints" / "step-00000004"
    model, tokenizer = smelt.load_model(checkpoint), smelt.load_tokenizer(checkpoint / "tokenizer")
    assert len(smelt.generate(model, tokenizer, ["def add(", "What is"], max_tokens=4)) == 2
    assert smelt.evaluate(checkpoint, tasks=["addition"], items=2)["tasks"]["addition"]["n"] == 2
    smelt.plot_run(run).savefig(Path(workshop.project) / "run.png")
