"""`smelt data`: build token shards, look at them, and trace the documents behind a step."""

from pathlib import Path
from typing import Annotated, Any

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load

app = typer.Typer(help="Build, inspect and trace token shards.", no_args_is_help=True)


@app.command()
def build(recipe: RecipeFile, overrides: Overrides = None, project: Project = HERE, as_json: Json = False) -> None:
    """Tokenize the recipe's corpus into shards, building corpus and tokenizer first where they are missing.

    Example: smelt data build recipes/demo.yaml
    """
    loaded = load(recipe, overrides)
    from smelt.cli.progress import announced
    from smelt.dataset.trace import inspect as look
    from smelt.lifecycle.artifacts import prepare

    ready = prepare(loaded, project, announced)
    facts = look(ready.shards) if ready.shards else {}
    answer(as_json, {"path": ready.shards, **facts}, f"{ready.shards}\n{_table(facts)}")


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A folder of token shards, ours or datatrove's.")],
    as_json: Json = False,
) -> None:
    """Check a folder of shards and count its documents and tokens.

    Example: smelt data inspect artifacts/shards/0123456789abcdef
    """
    from smelt.dataset.trace import inspect as look

    facts = look(folder)
    answer(as_json, facts, _table(facts))


@app.command()
def trace(
    run: Annotated[Path, typer.Argument(help="A run directory, such as runs/demo.")],
    step: Annotated[int, typer.Option(help="The step, as metrics.jsonl counts them (from 1).")],
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Print the documents behind a step: source, shard, document, where in it, and the text.

    Example: smelt data trace runs/demo --step 100
    """
    from smelt.lifecycle.pretrain import trace_step

    rows = trace_step(run, step, project)
    lines = (
        f"window {row['window']:<4} {row['source']:<10} epoch {row['epoch']} document {row['document']:<7} "
        f"from token {row['offset']:<6} columns {row['columns'][0]}-{row['columns'][1]}  {_excerpt(row['text'])}"
        for row in rows
    )
    answer(as_json, rows, "\n".join(lines))


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else f"{flat[:77]}..."


def _table(facts: dict[str, Any]) -> str:
    return "\n".join(
        f"{name:<16} {split:<10} {each['documents']:>9,} documents {each['tokens']:>13,} tokens "
        f"{each['shards']} shards  mean {each['mean_tokens']:,.0f} tokens"
        for name, splits in facts.get("sources", {}).items()
        for split, each in splits.items()
    )
