"""`smelt export` and `smelt import`: Hugging Face layouts, both ways."""

from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import Json, answer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="One of our checkpoints.")],
    out: Annotated[Path, typer.Argument(help="The Hugging Face folder to write.")],
    as_json: Json = False,
) -> None:
    """Write a checkpoint as `transformers` reads it (Llama, or SmolLM3 where some layers have no positions).

    Example: smelt export runs/demo/checkpoints/step-00000400 exported
    """
    from smelt.lifecycle.export import export_checkpoint

    family = export_checkpoint(checkpoint, out)
    answer(as_json, {"path": out, "family": family}, f"{out}: {family}")


def import_(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder (Llama or SmolLM3).")],
    out: Annotated[Path, typer.Argument(help="The folder to write in our layout.")],
    as_json: Json = False,
) -> None:
    """Bring a Hugging Face model into our layout.

    Example: smelt import exported imported
    """
    from smelt.lifecycle.export import import_folder

    parameters = import_folder(folder, out)
    answer(as_json, {"path": out, "parameters": parameters}, f"{out}: {parameters:,} parameters")
