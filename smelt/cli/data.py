"""`smelt data`: build token shards, look at them, and trace the documents behind a step."""

from pathlib import Path
from typing import Annotated, Any

import typer

from smelt.cli import data_mixtures, data_plan
from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load

app = typer.Typer(help="Plan, build, inspect and trace token shards.", no_args_is_help=True)
app.command()(data_plan.plan)
app.command()(data_mixtures.draw)
app.command()(data_mixtures.propose)
app.command()(data_mixtures.anneal)


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
    sequence: Annotated[
        int | None, typer.Option(min=1, help="Compare packings into windows of so many tokens.")
    ] = None,
    span: Annotated[int, typer.Option(min=1, help="As dataset.span of the recipe.")] = 2**16,
    as_json: Json = False,
) -> None:
    """Check a folder of shards and count its documents and tokens; with --sequence, what packing makes of them.

    Example: smelt data inspect artifacts/shards/0123456789abcdef --sequence 4096
    """
    from smelt.dataset.trace import inspect as look

    facts = look(folder, packing=(span, sequence) if sequence else None)
    answer(as_json, facts, "\n".join([_table(facts), *_packing(facts)]))


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
    from smelt.lifecycle.provenance import trace_step

    rows = trace_step(run, step, project)
    lines = (
        f"window {row['window']:<4} {row['source']:<10} epoch {row['epoch']} document {row['document']:<7} "
        f"from token {row['offset']:<6} columns {row['columns'][0]}-{row['columns'][1]}  {_excerpt(row['text'])}"
        for row in rows
    )
    answer(as_json, rows, "\n".join(lines))


@app.command()
def find(
    text: Annotated[str, typer.Argument(help="The text, as it stands in a document.")],
    run: Annotated[Path, typer.Option(help="A run directory, such as runs/demo.")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many places.")] = 20,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Tell when a run sees a text: each place of it in the data, and the steps whose batches hold it.

    Exits with 1 where the data does not have it. Example: smelt data find "the quick brown fox" --run runs/demo
    """
    from smelt.lifecycle.provenance import find_text

    places = find_text(run, text, project, limit)
    answer(as_json, places, "\n".join(line for place in places for line in _place(place)) or "not in the data")
    raise typer.Exit(not places)


def _place(place: dict[str, Any]) -> list[str]:
    head = (
        f"{place['source']:<10} {Path(place['shard']).name} document {place['document']:<7} from token "
        f"{place['offset']:<6} {place['tokens']} tokens{'' if place['same_tokens'] else ', tokenized otherwise'}  "
        f"{_excerpt(place['context'])}"
    )
    seen = [
        f"  step {each['step']:<8} window {each['window']:<4} columns {each['columns'][0]}-{each['columns'][1]} "
        f"epoch {each['epoch']}{'' if each['done'] else '  (to come)'}"
        for each in place["seen"]
    ]
    return [head, *(seen or ["  in no step of the plan"])]


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else f"{flat[:77]}..."


def _table(facts: dict[str, Any]) -> str:
    return "\n".join(
        f"{name:<16} {split:<10} {each['documents']:>9,} documents {each['tokens']:>13,} tokens "
        f"{each['shards']} shards  mean {each['mean_tokens']:,.0f} tokens  "
        f"{each['share_under_2048_tokens']:.0%} of documents under 2,048"
        for name, splits in facts.get("sources", {}).items()
        for split, each in splits.items()
    )


def _packing(facts: dict[str, Any]) -> list[str]:
    return [
        f"{name:<16} {split:<10} {kind:<11} {each['windows']:>9,} windows  padding {each['padding']:.2%}  "
        f"cut {each['cut']:.1%} of documents ({each['cut_needlessly']:.1%} would fit)  "
        f"attention saved by the document mask {each['attention_saved']:.1%}"
        for name, splits in facts.get("sources", {}).items()
        for split, found in splits.items()
        for kind, each in found.get("packing", {}).items()
        if isinstance(each, dict)
    ]
