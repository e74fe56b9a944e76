"""`smelt tokenizer`: train a recipe's tokenizer, compare tokenizers, sweep vocabulary sizes, choose one for a model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load

app = typer.Typer(help="Train, compare and choose tokenizers.", no_args_is_help=True)
Out = Annotated[Path | None, typer.Option("--out", help="A folder for the result as JSON and as a chart.")]


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


@app.command()
def compare(
    tokenizers: Annotated[list[str], typer.Argument(metavar="[NAME=]TOKENIZER...", help="Folders, files, hub ids.")],
    text: Annotated[
        list[str],
        typer.Option("--text", help="LANGUAGE=PATH or LANGUAGE/DOMAIN=PATH, then #FIELD."),
    ],
    by: Annotated[str | None, typer.Option(help="Show one metric alone: fertility, pcw, bytes_per_token...")] = None,
    size: Annotated[str, typer.Option("--bytes", help="How much of each text to read.")] = "5M",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare tokenizers by fertility, continued words, compression and speed, by language and domain.

    Example: smelt tokenizer compare ours=artifacts/tokenizer/01ab Qwen/Qwen3-8B --text en=en.jsonl --text fr=fr.jsonl
    """
    from smelt.cli.tokenizer_tables import comparison_table
    from smelt.lifecycle.tokenizers import compare_tokenizers

    found = compare_tokenizers(tokenizers, text, _count("--bytes", size), by, out)
    answer(as_json, found, comparison_table(found, by is not None))


@app.command()
def sweep(
    recipe: RecipeFile,
    overrides: Overrides = None,
    sizes: Annotated[str, typer.Option(help="Vocabulary sizes.")] = "4Ki,8Ki,16Ki,32Ki,64Ki",
    out: Out = None,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Train the recipe's tokenizer at many sizes and show what each doubling gains on held-out text.

    Example: smelt tokenizer sweep recipes/four-sources.yaml --sizes 1Ki,2Ki,4Ki,8Ki --out sweep
    """
    loaded = load(recipe, overrides)
    from smelt.cli.progress import announced
    from smelt.cli.tokenizer_tables import sweep_table
    from smelt.lifecycle.artifacts import corpus
    from smelt.lifecycle.tokenizers import sweep_tokenizers

    loaded.section("tokenizer")
    counts = [_count("--sizes", size) for size in sizes.split(",")]
    rows = sweep_tokenizers(loaded, corpus(loaded, project, announced), counts, out)
    answer(as_json, rows, sweep_table(rows))


@app.command()
def choose(
    recipe: RecipeFile,
    comparison: Annotated[Path, typer.Argument(help="comparison.json, as `tokenizer compare --out` writes it.")],
    overrides: Overrides = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="LANGUAGE=SHARE of the model's words; else all alike.")
    ] = None,
    max_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="The largest share of parameters for the embeddings.")
    ] = 0.25,
    max_fertility: Annotated[float, typer.Option(help="Tokens a word up to which a language is covered.")] = 2.5,
    as_json: Json = False,
) -> None:
    """Recommend a compared tokenizer for the recipe's model, or to train one (exit code 1), with reasons.

    Example: smelt tokenizer choose recipes/architectures/smollm3-3b.yaml comparison.json --weight en=8 --weight fr=2
    """
    from dataclasses import asdict

    from smelt.lifecycle.tokenizers import choose_tokenizer

    weights = dict(_weight(each) for each in weight or [])
    choice = choose_tokenizer(load(recipe, overrides), comparison, weights, max_share, max_fertility)
    head = f"reuse {choice.name}" if choice.name else "train a tokenizer"
    answer(as_json, asdict(choice), "\n".join([head, *(f"  {reason}" for reason in choice.reasons)]))
    sys.exit(0 if choice.name else 1)


def _count(option: str, value: str) -> int:
    from smelt.errors import InputError
    from smelt.recipe.units import parse_count

    try:
        return int(parse_count(value.strip()))
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _weight(given: str) -> tuple[str, float]:
    from smelt.errors import InputError

    language, _, share = given.partition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not (language and 0 < value < float("inf")):
        raise InputError(f"--weight '{given}': write LANGUAGE=SHARE with a share above 0, such as en=0.8")
    return language, value
