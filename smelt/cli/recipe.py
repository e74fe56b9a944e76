"""`smelt recipe`: check, cost, show and compare recipes, and their JSON Schema for editors."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smelt.cli.common import Json, Overrides, RecipeFile, answer, load, say

if TYPE_CHECKING:
    from smelt.recipe.schema import Recipe

app = typer.Typer(help="Check, show and compare recipes.", no_args_is_help=True)


@app.command()
def check(recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Validate a recipe without starting anything.

    Example: smelt recipe check recipes/demo.yaml train.optimizer.lr=1e-3
    """
    loaded = load(recipe, overrides)
    if tasks := (*loaded.evals.tasks, *(loaded.posttrain.tasks if loaded.posttrain else ())):
        from smelt.evals.tasks import find_tasks

        find_tasks(tasks)
    facts = _facts(loaded)
    from smelt.recipe.mixtures.notices import notices

    for line in notices(loaded):
        say(f"note: {line}")
    words = ", ".join(
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in facts.items()
    )
    answer(as_json, {"ok": True, **facts}, f"ok: {words}")


@app.command()
def cost(
    recipe: RecipeFile,
    overrides: Overrides = None,
    vocab: Annotated[int | None, typer.Option(help="Size of the vocabulary, for a recipe without tokenizer.")] = None,
    sequence: Annotated[int | None, typer.Option(help="Tokens a row, instead of the longest trained on.")] = None,
    as_json: Json = False,
) -> None:
    """Count a model's parameters, FLOPs and cache bytes from its recipe alone.

    Example: smelt recipe cost recipes/architectures/deepseek-v3.yaml --vocab 129280
    """
    from smelt.lifecycle.cost import recipe_cost

    facts = recipe_cost(load(recipe, overrides), vocab, sequence)
    answer(as_json, facts, _cost_table(facts))


@app.command()
def show(recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print the resolved recipe, every default written out.

    Example: smelt recipe show recipes/demo.yaml
    """
    from smelt.recipe.dump import to_yaml

    loaded = load(recipe, overrides)
    answer(as_json, loaded.model_dump(mode="json"), to_yaml(loaded).rstrip())


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A recipe.")],
    b: Annotated[Path, typer.Argument(help="The recipe to compare it with.")],
    as_json: Json = False,
) -> None:
    """Print the keys whose resolved values differ; exit code 1 when there are any.

    Example: smelt recipe diff recipes/demo.yaml runs/demo/recipe.yaml
    """
    from smelt.recipe.dump import diff as differences

    changes = differences(load(a, None), load(b, None))
    rows = [{"key": change.key, "before": change.before, "after": change.after} for change in changes]
    answer(as_json, rows, "\n".join(map(str, changes)) or "no differences")
    sys.exit(1 if changes else 0)


@app.command()
def schema() -> None:
    """Print the recipe's JSON Schema, which editors use to complete and check YAML.

    Example: smelt recipe schema > recipe.schema.json
    """
    from smelt.recipe.load import json_schema

    answer(False, None, json.dumps(json_schema(), indent=2))


def _facts(recipe: "Recipe") -> dict[str, str | int]:
    from smelt.recipe.account import parameters
    from smelt.recipe.plan import Plan
    from smelt.recipe.sections.model import Model

    facts: dict[str, str | int] = {"name": recipe.name, "sources": len(recipe.sources)}
    trained = recipe.tokenizer.train if recipe.tokenizer else None
    if isinstance(recipe.model, Model) and trained:
        facts["parameters"] = parameters(recipe.model, -(-trained.vocab // 128) * 128)["total"]
    if recipe.train:
        plan = Plan(recipe)
        facts["steps"] = plan.total_steps - plan.first
        facts["tokens"] = plan.tokens_before(plan.total_steps) - plan.tokens_before(plan.first)
    return facts


def _cost_table(facts: dict[str, Any]) -> str:
    from smelt.report.units import count

    parts, at = facts["parameters"], f"at {facts['sequence']:,} tokens"
    rows = [(f"parameters, {name.replace('_', ' ')}", f"{value:,}") for name, value in parts.items() if value]
    rows.append((f"forward FLOPs a token, {at}", count(facts["forward_flops_per_token"])))
    rows.append((f"training FLOPs a token, {at}", count(facts["training_flops_per_token"])))
    rows.append((f"cache of a row, {at}", f"{facts['cache_bytes'] / 2**20:,.1f} MiB"))
    for experts in facts.get("experts", ()):
        words = f"sparsity {experts['sparsity']:.1f}, granularity {experts['granularity']:.2f}"
        rows.append((f"{experts['experts']} experts", words))
    if "training_flops" in facts:
        rows.append(("training FLOPs", f"{facts['training_flops']:.3g}"))
    title = f"{facts['name']}: {count(parts['total'])} parameters, {count(parts['active'])} a token"
    return "\n".join([f"{title} (vocabulary {facts['vocabulary']:,})", *(f"  {name:40} {it}" for name, it in rows)])
