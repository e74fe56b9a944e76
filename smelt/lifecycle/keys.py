"""Fingerprints of what each step of a run is made from: one changed input, and its step and all after it run again."""

from pathlib import Path

from smelt.files import fingerprint, read_json
from smelt.posttrain.conversations import conversations_inputs
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoint_path


def stage_keys(recipe: Recipe, run: Path) -> list[str]:
    """Keys of the export and of each post-training stage: the final weights' hash, then each stage's own section."""
    last = checkpoint_path(run, Plan(recipe).total_steps) / "manifest.json"
    keys = [fingerprint(read_json(last)["files"])]
    for stage in recipe.posttrain.stages if recipe.posttrain else ():
        data = conversations_inputs(stage.data)
        keys.append(fingerprint([keys[-1], recipe.seed, stage.model_dump(mode="json"), data]))
    return keys


def evaluation_key(recipe: Recipe, stage_key: str) -> str:
    """Key of a stage's evaluation."""
    section = recipe.section("posttrain")
    return fingerprint([stage_key, section.tasks, section.items, recipe.evals.samples])
