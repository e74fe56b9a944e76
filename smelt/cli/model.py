"""`smelt export` and `smelt import`: Hugging Face layouts, both ways."""

from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import Json, answer, say

Check = Annotated[bool, typer.Option("--check", help="Compare every block with transformers on a batch of tokens.")]


def export(
    checkpoint: Annotated[Path, typer.Argument(help="One of our checkpoints, or an imported model.")],
    out: Annotated[Path, typer.Argument(help="The Hugging Face folder to write.")],
    family: Annotated[
        str | None, typer.Option("--family", help="The model_type to write; else the first that fits the model.")
    ] = None,
    average: Annotated[
        bool, typer.Option("--average", help="Export the averaged weights that the recipe's train.averaging asks for.")
    ] = False,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Write a checkpoint as `transformers` reads it, in the first family that can express the model.

    Example: smelt export runs/demo/checkpoints/step-00000400 exported
    """
    from smelt.lifecycle.export import export_checkpoint

    chosen = export_checkpoint(checkpoint, out, family=family, check=check, average=average, warn=say)
    answer(as_json, {"path": out, "family": chosen}, f"{out}: {chosen}")


def import_(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder: config.json and safetensors.")],
    out: Annotated[Path, typer.Argument(help="The folder to write in our layout.")],
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Bring a Hugging Face model into our layout.

    Example: smelt import exported imported
    """
    from smelt.lifecycle.export import import_folder

    parameters = import_folder(folder, out, check=check, warn=say)
    answer(as_json, {"path": out, "parameters": parameters}, f"{out}: {parameters:,} parameters")
