"""The recipe as a run freezes it: every `auto` resolved, by this machine or as the run that goes on resolved it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from smelt.errors import InputError
from smelt.marathon.adapt import restored
from smelt.model.warm import resolved
from smelt.parallel.fp8 import check_fp8
from smelt.parallel.world import World
from smelt.recipe.account import training_flops
from smelt.recipe.branch import resolve_from, with_past
from smelt.recipe.load import load_recipe
from smelt.recipe.mixtures.caps import with_caps
from smelt.recipe.pipeline import splits_backward
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.trunk import Trunk
from smelt.train.peak import peak_flops
from smelt.train.precision import resolve_dtype

COMPILING = 90.0  # seconds that compiling a layer takes on a CPU
GAIN = 0.15  # share of the time of a step that it saves there
SHARE = 0.3  # of the peak, what training reaches


def freeze(recipe: Recipe, run: Path, vocab: int, world: World, tokens: Mapping[str, int]) -> Recipe:
    """`recipe` with its model written out, and caps (by the `tokens` of each source), precision, layout and `compile`
    resolved; `infra.micro_batch` stays `auto` until the model is there, unless the run at `run` has resolved it in the
    same layout."""
    before = load_recipe(run / "recipe.yaml") if (run / "recipe.yaml").is_file() else None
    recipe = restored(with_caps(with_trunk(resolved(recipe), run, before), tokens, before), before)
    train = recipe.section("train")
    if train.precision == "fp8":
        check_fp8(world.device)
    if train.precision == "auto":
        chosen = "bf16" if resolve_dtype(train, world.device) == torch.bfloat16 else "fp32"
        precision = chosen if before is None else before.section("train").precision
        recipe = recipe.model_copy(update={"train": train.model_copy(update={"precision": precision})})
    changes: dict[str, Any] = {"layout": world.layout}
    infra, frozen = recipe.infra, None if before is None else before.infra
    if infra.compile == "auto":
        kept = frozen is not None and frozen.compile != "auto"
        pays = frozen.compile if kept and frozen else compile_pays(recipe, vocab, world)
        changes["compile"] = bool(pays) and not splits_backward(world.layout)
    if infra.micro_batch == "auto" and frozen is not None and frozen.layout == world.layout:
        changes["micro_batch"] = frozen.micro_batch
    return recipe.model_copy(update={"infra": infra.model_copy(update=changes)})


def with_trunk(recipe: Recipe, run: Path, before: Recipe | None) -> Recipe:
    """The recipe with the past that `train.from` names written out, as the run `before` has it on record."""
    trunk = recipe.section("train").trunk
    if trunk is None or trunk.past is not None:
        return recipe
    known = None if before is None else before.section("train").trunk
    if known is not None and known.past is not None and (known.run, known.step) == (trunk.run, trunk.step):
        return with_past(recipe, known.past)
    file = trunk_folder(trunk, run) / "recipe.yaml"
    if not file.is_file():
        raise InputError(f"train.from.run: '{trunk.run}' is no run ({file} is missing); name one of {run.parent}")
    return resolve_from(recipe, load_recipe(file))


def trunk_folder(trunk: Trunk, run: Path) -> Path:
    """Where the trunk of `run` lies: beside it, or at a path."""
    beside = run.parent / trunk.run
    return beside if beside.is_dir() else Path(trunk.run).expanduser()


def compile_pays(recipe: Recipe, vocab: int, world: World) -> bool:
    """Whether compiling saves more time than it takes: on CUDA always, on a CPU in long runs where a compiler is."""
    if world.device.type == "cuda":
        return True
    if not (shutil.which("g++") or shutil.which("clang++")):
        return False
    flops = training_flops(recipe, vocab)
    dtype = resolve_dtype(recipe.section("train"), world.device)
    # At most a few seconds of training are told apart from hours without measuring the machine.
    fastest = 1e13 * world.ranks
    if flops / fastest * GAIN > COMPILING:
        return True
    return flops / (peak_flops(world.device, dtype) * world.ranks * SHARE) * GAIN > COMPILING
