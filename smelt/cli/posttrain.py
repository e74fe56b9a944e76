"""`smelt posttrain` and `smelt chat`: make an assistant, and talk to it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load, say


def posttrain(
    recipe: RecipeFile,
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage, on what the one before left.")] = None,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Run the recipe's post-training stages on its finished run.

    Example: smelt posttrain recipes/demo.yaml --stage sft
    """
    loaded = load(recipe, overrides)
    from smelt.lifecycle.posttraining import posttrain as work

    folders = work(loaded, project, only=stage, say=say)
    answer(as_json, {"models": folders}, "\n".join(map(str, folders)))


def chat(
    model: Annotated[Path, typer.Argument(help="A tuned model's folder.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
) -> None:
    """Talk to a tuned model; an empty line or Ctrl-D ends it.

    Example: smelt chat runs/demo/posttrain/sft
    """
    from smelt.evals.run import load as load_both
    from smelt.posttrain.answer import answer as reply

    decoder, tokenizer = load_both(model)
    messages: list[dict[str, str]] = []
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = sys.stdin.readline().strip()
        if not line:
            break
        messages.append({"role": "user", "content": line})
        text = reply(decoder, tokenizer, [messages], max_tokens=max_tokens, temperature=temperature, seed=0)[0]
        messages.append({"role": "assistant", "content": text})
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
