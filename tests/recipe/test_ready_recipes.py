"""Ready recipes are valid; those to compare differ in what they say they do, and in size only where they say so."""

from pathlib import Path

import pytest

from smelt.recipe.account import parameters
from smelt.recipe.dump import diff
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
ABLATIONS = sorted(path.stem for path in (RECIPES / "ablations").glob("*.yaml"))
VOCAB = 1024


def ablation(name: str) -> Recipe:
    return load_recipe(RECIPES / "ablations" / f"{name}.yaml")


def sizes(name: str) -> dict[str, int]:
    return parameters(ablation(name).section("model"), VOCAB)


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_recipe_is_valid_and_named_after_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_DATA", "data")
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"base"}))
def test_an_ablation_changes_one_part_and_not_the_data(name: str) -> None:
    changed = {change.key for change in diff(ablation("base"), ablation(name))} - {"name"}
    assert changed
    sections = {".".join(key.split(".")[:2]) for key in changed}
    assert all(each.startswith(("model.", "train.document_mask", "train.optimizer", "infra.")) for each in sections)


@pytest.mark.parametrize(
    "names",
    [
        ("kv-heads-8", "kv-heads-4", "kv-heads-2", "kv-heads-1"),  # ARCH-05
        ("base", "unmasked", "rnope", "rnope-unmasked", "z-loss", "decayed-embedding"),  # ARCH-07, 11, 15, 16
        ("base", "untied-shallow"),  # ARCH-08
        ("base", "deep", "wide"),  # ARCH-19
        ("base", "linear", "hybrid"),  # ARCH-26
    ],
    ids=lambda names: names[-1],
)
def test_arms_that_are_to_be_of_one_size_are(names: tuple[str, ...]) -> None:
    """ARCH-05, ARCH-07, ARCH-08, ARCH-11, ARCH-15, ARCH-16, ARCH-19, ARCH-26."""
    totals = [sizes(name)["total"] for name in names]
    assert max(totals) <= 1.005 * min(totals), totals


def test_the_warmup_of_ademamix_is_the_whole_run() -> None:
    """OPT-02."""
    recipe = ablation("ademamix")
    assert recipe.section("train").optimizer.warmup_steps == Plan(recipe).total_steps


def test_untying_makes_the_larger_model_of_its_pair() -> None:
    """ARCH-08."""
    assert sizes("untied")["total"] - sizes("base")["total"] == VOCAB * 128


def test_experts_are_as_large_a_token_as_the_base_and_alike_but_for_their_balance() -> None:
    """ARCH-22, ARCH-23."""
    names = ("experts", "experts-loss", "experts-loss-local", "experts-bias")
    for name in names:
        assert sizes(name)["active"] == pytest.approx(sizes("base")["active"], rel=0.005)
        assert sizes(name)["total"] > 1.8 * sizes("base")["total"]
    changed = {change.key for change in diff(ablation("experts-loss"), ablation("experts-loss-local"))}
    assert changed == {"name", "model.feedforward.balance.scope", "infra.micro_batch"}
