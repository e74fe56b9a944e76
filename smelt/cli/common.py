"""What the verbs share: their common options, and one way to answer in JSON or in words."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # building the schema takes longer than `smelt --help` may
    from smelt.recipe.schema import Recipe

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, such as train.optimizer.lr=1e-3."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON result on stdout, all else on stderr.")]
Project = Annotated[Path, typer.Option("--project", help="The folder that holds artifacts/ and runs/.")]
HERE = Path(".")


def load(path: Path, overrides: list[str] | None) -> "Recipe":
    """The recipe with its overrides."""
    from smelt.recipe.load import load_recipe

    return load_recipe(path, overrides or [])


def speaks() -> bool:
    """Whether this process, of all that torchrun may have started, is the one that talks to the user."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line for the person at the terminal."""
    if speaks():
        sys.stderr.write(f"{text}\n")


def answer(as_json: bool, result: Any, text: str) -> None:
    """The command's result: `result` as JSON, or `text`, on stdout."""
    if not speaks():
        return
    sys.stdout.write((json.dumps(result, ensure_ascii=False, default=str) if as_json else text) + "\n")
