"""`smelt tokenizer`: train a recipe's tokenizer."""

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load

app = typer.Typer(help="Train tokenizers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `train` a verb of its own while it is the only one."""


@app.command()
def train(recipe: RecipeFile, overrides: Overrides = None, project: Project = HERE, as_json: Json = False) -> None:
    """Train the recipe's tokenizer on its corpus (or copy the one it loads).

    Example: smelt tokenizer train recipes/demo.yaml tokenizer.train.vocab=8Ki
    """
    loaded = load(recipe, overrides)
    from smelt.cli.progress import announced
    from smelt.lifecycle.artifacts import tokenizer
    from smelt.tokenizer.tokenizer import load_tokenizer

    path = tokenizer(loaded, project, announced)
    trained = load_tokenizer(path)
    facts = {"path": path, "tokens": len(trained), "padded": trained.padded, "hash": trained.hash}
    answer(as_json, facts, f"{path}: {len(trained):,} tokens (model vocabulary {trained.padded:,})")
