"""`smelt corpus`: build the clean documents of a recipe, and look at them."""

from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load

app = typer.Typer(help="Build and inspect clean documents.", no_args_is_help=True)


@app.command()
def build(recipe: RecipeFile, overrides: Overrides = None, project: Project = HERE, as_json: Json = False) -> None:
    """Read every source, split train from validation, write clean documents.

    Example: smelt corpus build recipes/demo.yaml
    """
    loaded = load(recipe, overrides)
    from smelt.cli.progress import announced
    from smelt.lifecycle.artifacts import corpus

    path = corpus(loaded, project, announced)
    answer(as_json, {"path": path, "report": _report(path)}, f"{path}\n{_table(path)}")


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A corpus folder, as `corpus build` names it.")], as_json: Json = False
) -> None:
    """Count documents and bytes by source and split.

    Example: smelt corpus inspect artifacts/corpus/0123456789abcdef
    """
    from smelt.files import check_directory

    check_directory(folder)
    answer(as_json, _report(folder), _table(folder))


def _report(folder: Path) -> dict[str, dict[str, dict[str, int]]]:
    from smelt.files import read_json

    report: dict[str, dict[str, dict[str, int]]] = read_json(folder / "report.json")
    return report


def _table(folder: Path) -> str:
    return "\n".join(
        f"{source:<16} {split:<10} {counts['documents']:>9,} documents {counts['bytes'] / 1e6:>9.2f} MB"
        for source, splits in _report(folder).items()
        for split, counts in splits.items()
    )
