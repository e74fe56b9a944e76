"""`smelt data draw|propose|anneal`: what small runs say about mixtures, and what a candidate source is worth."""

from pathlib import Path
from typing import Annotated

import typer

from smelt.cli.common import HERE, Json, RecipeFile, answer, load


def draw(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="The folder that the recipes go to.")],
    count: Annotated[int, typer.Option(min=2, help="How many mixtures, the recipe's own among them.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Which mixtures.")] = 0,
    as_json: Json = False,
) -> None:
    """Write recipes of small runs: a recipe again and again with mixtures drawn around its own.

    Example: smelt data draw recipes/mixtures/small.yaml --out proxies --count 32
    """
    loaded = load(recipe, None)
    from smelt.lifecycle.small_runs import write_small_runs

    paths = write_small_runs(recipe, loaded, count, out, seed)
    run = f"for recipe in {out}/*.yaml; do smelt train $recipe; done"
    answer(as_json, {"recipes": paths}, f"{len(paths)} recipes in {out}; train them: {run}")


def propose(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; the first one's mixture is the base.")],
    target: Annotated[
        str, typer.Option(help="What to lower: validation, validation.SOURCE, or to raise: task.NAME.")
    ] = "validation",
    most: Annotated[list[str] | None, typer.Option(help="The largest share of a source, such as math=0.1.")] = None,
    as_json: Json = False,
) -> None:
    """Propose a mixture by regression over the results of small runs; exit code 1 where they foresee no sure gain.

    Example: smelt data propose runs/small-* --target validation.math
    """
    from smelt.errors import InputError
    from smelt.lifecycle.small_runs import propose_from

    limits = {}
    for word in most or []:
        source, _, number = word.partition("=")
        try:
            limits[source] = float(number)
        except ValueError:
            raise InputError(f"--most {word}: expected SOURCE=SHARE, such as math=0.1") from None
        if not 0 < limits[source] <= 1:
            raise InputError(f"--most {word}: a share lies between 0 and 1")
    found = propose_from(runs, target, limits)
    mixture = ", ".join(f"{source}: {share:g}" for source, share in found.mixture.items())
    facts = {**vars(found), "target": target, "sure": found.sure}
    words = (
        f"mixture: {{{mixture}}}\nforeseen {found.foreseen:.4f} against {found.base:.4f} of the base, give or take "
        f"{found.error:.4f}\nby {found.model} regression over {found.runs} runs; rank correlation on held-out runs "
        f"{found.rank:.2f}\n{'worth a run' if found.sure else 'no sure gain: keep the base'}"
    )
    answer(as_json, facts, words)
    raise typer.Exit(0 if found.sure else 1)


def anneal(
    run: Annotated[Path, typer.Argument(help="The trunk's run directory, such as runs/trunk.")],
    step: Annotated[int, typer.Option(help="The step of the trunk's checkpoint.")],
    candidate: Annotated[str, typer.Option(help="The source to try; NAME=FOLDER for token shards of a new one.")],
    tokens: Annotated[str, typer.Option(help="How long both runs are.")] = "50B",
    share: Annotated[float, typer.Option(help="The candidate's part of the mixture.")] = 0.6,
    out: Annotated[Path, typer.Option(help="The folder that both recipes go to.")] = HERE,
    as_json: Json = False,
) -> None:
    """Write the annealing pair of a candidate source: 60 % of it with 40 % of the mixture at hand, and the control.

    Example: smelt data anneal runs/trunk --step 3_000_000 --candidate finemath-4plus=shards/finemath-4plus
    """
    from smelt.errors import InputError
    from smelt.lifecycle.small_runs import write_pair
    from smelt.recipe.load import load_recipe
    from smelt.recipe.mixtures.annealing import annealing_pair
    from smelt.recipe.units import parse_count

    if not (run / "recipe.yaml").is_file():
        raise InputError(f"{run}: no such run; name a folder such as runs/trunk")
    name, _, shards = candidate.partition("=")
    try:
        length = parse_count(tokens)
    except ValueError as error:
        raise InputError(f"--tokens {tokens}: {error}") from None
    pair = annealing_pair(load_recipe(run / "recipe.yaml"), step, name, length, share=share, shards=shards or None)
    paths = write_pair(pair, out)
    answer(as_json, {"recipes": paths}, "\n".join(map(str, paths)))
