"""`smelt eval`: scores of a model on tasks."""

from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import Json, answer


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint, or a Hugging Face folder.")],
    task: Annotated[list[str], typer.Option("--task", help="A task's name; repeat for several.")],
    items: Annotated[int, typer.Option(min=1, help="Items of each task.")] = 200,
    seed: Annotated[int, typer.Option(help="Draws the items.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the chat format, as a tuned model expects.")] = False,
    as_json: Json = False,
) -> None:
    """Score a model on tasks, with standard errors.

    Example: smelt eval runs/demo/posttrain/sft --task addition --task subtraction --chat
    """
    from smelt.evals.run import evaluate as score
    from smelt.evals.run import load
    from smelt.evals.tasks import find_tasks
    from smelt.posttrain.template import asking

    find_tasks(task)
    decoder, tokenizer = load(model)
    render = asking(tokenizer) if chat else None
    result = score(decoder, tokenizer, tasks=task, items=items, seed=seed, render=render)
    lines = (
        f"{name:<20} {row['metric']:<12} {row['score']:.3f} ± {row['stderr']:.3f}  (n={row['n']}, "
        f"chance {row['chance']:.2f}, {row['formulation']})"
        for name, row in result["tasks"].items()
    )
    answer(as_json, result, "\n".join(lines))
