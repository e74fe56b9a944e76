"""`smelt corpus`: build the clean documents of a recipe, and look at them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load
from smelt.cli.corpus_classifier import classifier

app = typer.Typer(help="Build and inspect clean documents.", no_args_is_help=True)
app.command()(classifier)


@app.command()
def build(recipe: RecipeFile, overrides: Overrides = None, project: Project = HERE, as_json: Json = False) -> None:
    """Read every source, edit, filter and deduplicate as the recipe says, and write clean documents.

    What an earlier build has done already is not done again.

    Example: smelt corpus build recipes/demo.yaml
    """
    loaded = load(recipe, overrides)
    from smelt.cli.progress import CorpusProgress, announced
    from smelt.files import read_json
    from smelt.lifecycle.artifacts import corpus

    with CorpusProgress() as progress:
        path = corpus(loaded, project, announced, progress)
    funnel = read_json(path / "funnel.json")
    result = {"path": path, "report": _report(path), "funnel": funnel}
    answer(as_json, result, f"{path}\n{_table(path)}{_dropped(funnel)}")


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A corpus folder, as `corpus build` names it.")],
    out: Annotated[Path | None, typer.Option(help="Where the page goes; FOLDER/report.html by default.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write a page on what was kept and dropped and why, with examples; count documents and bytes.

    Example: smelt corpus inspect artifacts/corpus/0123456789abcdef
    """
    from smelt.report.corpus.html import write_corpus_report

    page = write_corpus_report(folder, out)
    if show:
        typer.launch(str(page))
    answer(as_json, {"page": page, "report": _report(folder)}, f"{_table(folder)}\n{page}")


def _report(folder: Path) -> dict[str, dict[str, dict[str, int]]]:
    from smelt.files import read_json

    report: dict[str, dict[str, dict[str, int]]] = read_json(folder / "report.json")
    return report


def _dropped(funnel: dict[str, list[dict[str, Any]]]) -> str:
    """What each step took of each source, as lines that follow others."""
    return "".join(
        f"\n{source:<16} - {row['step']:<45} {row['documents']:>9,} documents {row['bytes'] / 1e6:>9.2f} MB"
        for source, rows in funnel.items()
        for row in rows[1:-1]
        if row["documents"] or row["bytes"]
    )


def _table(folder: Path) -> str:
    return "\n".join(
        f"{source:<16} {split:<10} {counts['documents']:>9,} documents {counts['bytes'] / 1e6:>9.2f} MB"
        for source, splits in _report(folder).items()
        for split, counts in splits.items()
    )
