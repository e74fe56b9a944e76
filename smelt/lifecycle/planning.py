"""Sizes of a recipe's sources as far as they are known without building anything, for its data plan."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from smelt.dataset.packing import packed_sources
from smelt.dataset.shards import Shards
from smelt.dataset.statistics import packing_facts
from smelt.errors import InputError
from smelt.files import read_json
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.frozen import trunk_folder, with_trunk
from smelt.recipe.schema import Recipe
from smelt.recipe.units import parse_count


class _Missing(Exception):
    """An artifact that has not been built."""


def available_tokens(recipe: Recipe, project: Path, stated: Mapping[str, int]) -> dict[str, int]:
    """Training tokens by source: as `stated`, else of shards that are there; sources of unknown size are left out."""
    folders = {name: Path(folder) for name, folder in recipe.dataset.shards.items()}
    known = {name: Shards(folder).tokens for name, folder in folders.items() if folder.is_dir()}
    if recipe.tokenizer is not None and len(known) == len(folders):
        known |= _built(recipe, project)
    return {**known, **stated}


def with_past(recipe: Recipe, project: Path) -> Recipe:
    """`recipe` with the past that `train.from` names, where that run is in the project."""
    trunk = recipe.section("train").trunk
    run = project / "runs" / recipe.name
    if trunk is None or not (trunk_folder(trunk, run) / "recipe.yaml").is_file():
        return recipe
    return with_trunk(recipe, run, None)


def stated_tokens(words: list[str], recipe: Recipe) -> dict[str, int]:
    """`["math=54B"]` -> `{"math": 54_000_000_000}`; InputError for an unknown source or a number that is none."""
    stated = {}
    for word in words:
        source, equals, number = word.partition("=")
        if not equals or source not in recipe.sources:
            raise InputError(
                f"--have {word}: expected SOURCE=TOKENS, such as math=54B (known sources: {', '.join(recipe.sources)})"
            )
        try:
            stated[source] = int(parse_count(number))
        except ValueError as error:
            raise InputError(f"--have {word}: {error}") from None
        if stated[source] <= 0:
            raise InputError(f"--have {word}: a source holds at least one token")
    return stated


def packing_plan(recipe: Recipe, project: Path) -> dict[str, dict[str, Any]]:
    """`packing_facts` of every source that a stage draws packed, as `NAME to SEQUENCE`, where its shards are there."""
    wanted = packed_sources(recipe)
    if not wanted or recipe.tokenizer is None:
        return {}
    try:
        sources = prepare(recipe, project, _there).sources(recipe)
    except _Missing:
        return {}
    return {
        f"{name} to {sequence}": packing_facts(sources[name], recipe.dataset.span, sequence)
        for name, sequence in wanted
    }


def _built(recipe: Recipe, project: Path) -> dict[str, int]:
    """Tokens of each source of the corpus, and of long documents, where their shards have been built."""
    try:
        ready = prepare(recipe, project, _there)
    except _Missing:
        return {}
    manifest = read_json(ready.shards / "manifest.json") if ready.shards else {"sources": {}}
    long = {name: read_json(folder / "manifest.json") for name, folder in ready.long.items()}
    return {
        **{name: splits["train"]["tokens"] for name, splits in manifest["sources"].items()},
        **{name: each["sources"]["long"]["train"]["tokens"] for name, each in long.items()},
    }


def _there(name: str, path: Path, build: Callable[[Path], object]) -> Path:
    if not path.exists() and not name.startswith("packing"):  # made in seconds from shards that are there
        raise _Missing
    return path
