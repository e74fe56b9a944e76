"""The account of a data plan: tokens, epochs, classes and the curve that is drawn."""

from pathlib import Path
from typing import Any

import pytest

from smelt.dataset.account import account
from smelt.dataset.order import DataOrder
from smelt.recipe.branch import resolve_from
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe

MIXTURES = Path(__file__).parents[2] / "recipes" / "mixtures"
STAGES = [
    {"name": "one", "steps": 200, "mixture": {"a": 3, "b": 1}},
    {"name": "two", "steps": 100, "mixture": {"b": 1}, "ramp": {"steps": 40, "rungs": 4}},
]


def classed(recipe: Recipe, **classes: list[str]) -> Recipe:
    return Recipe.model_validate(
        {**recipe.model_dump(), "dataset": {**recipe.dataset.model_dump(), "classes": classes}}
    )


def test_the_account_is_what_the_data_order_reads(make_recipe: Any) -> None:
    recipe = make_recipe(STAGES)
    available = {"a": 5000, "b": 704}
    facts = account(recipe, available)
    order = DataOrder(recipe, available)
    for step, stage in zip((200, 300), facts["stages"], strict=True):
        read = order.consumed(step)
        assert stage["last_step"] == step
        for source, row in stage["sources"].items():
            assert row["epochs"] == pytest.approx(read[source]["epochs"], abs=0.02)
    read = order.consumed(300)
    assert {source: row["tokens"] for source, row in facts["sources"].items()} == pytest.approx(
        {source: each["tokens"] for source, each in read.items()}, abs=6 * 8
    )
    assert facts["tokens"] == 300 * 64 == sum(stage["tokens"] for stage in facts["stages"])
    assert [stage["ramp_tokens"] for stage in facts["stages"]] == [0, 40 * 64]


def test_an_amended_mixture_is_no_ramp(make_recipe: Any) -> None:
    amendments = [
        {"from_step": 100, "set": {"train.stages.0.mixture": {"a": 1}}},
        {"from_step": 260, "set": {"train.stages.1.mixture": {"a": 1}}},
    ]
    amended = Recipe.model_validate({**make_recipe(STAGES).model_dump(), "amendments": amendments})
    assert [stage["ramp_tokens"] for stage in account(amended, {})["stages"]] == [0, 40 * 64]


def test_the_curve_has_a_stretch_for_each_mixture(make_recipe: Any) -> None:
    curve = account(make_recipe(STAGES), {})["curve"]
    assert [(row["first_token"] // 64, row["last_token"] // 64) for row in curve] == (
        [(0, 200), (200, 210), (210, 220), (220, 230), (230, 240), (240, 300)]
    )
    assert [row["shares"]["b"] for row in curve] == sorted(row["shares"]["b"] for row in curve)


def test_classes_sum_up_their_sources_and_leave_no_other_out(make_recipe: Any) -> None:
    """DATA-04: class sums are reported, by stage and over the whole."""
    facts = account(classed(make_recipe(STAGES, "abc"), web=["a"], rest=["c"]), {})
    assert facts["stages"][0]["classes"] == {"web": 0.75, "rest": 0.0, "b": 0.25}
    assert sum(facts["classes"].values()) == pytest.approx(1)
    decay = account(load_recipe(MIXTURES / "smollm3.yaml"), {})["stages"][2]["classes"]
    assert {name: round(100 * share, 1) for name, share in decay.items()} == (
        {"web": 50.4, "multilingual": 13.1, "code": 23.2, "math": 11.4, "reasoning": 1.8}
    )


def test_sizes_that_are_unknown_leave_epochs_open_and_caps_out(make_recipe: Any) -> None:
    recipe = make_recipe(STAGES, caps={"a": {"epochs": 1}})
    facts = account(recipe, {"b": 700})
    assert facts["sources"]["a"]["epochs"] is None and facts["sources"]["a"]["cap_factor"] is None
    assert facts["sources"]["b"]["epochs"] == pytest.approx(facts["sources"]["b"]["tokens"] / 700, abs=0.01)
    assert facts["notices"] == ["train.caps: all left out, as the size of 'a' is unknown; give it with --have"]
    assert facts["warnings"] and facts["warnings"][0].startswith("b: ")
    known = account(recipe, {"a": 5000, "b": 10**6})
    assert known["sources"]["a"]["epochs"] == pytest.approx(1, abs=0.001) and known["notices"] == []


def test_a_trunk_comes_first_where_it_is_known_and_is_left_out_where_not(make_recipe: Any) -> None:
    trunk = make_recipe([{"name": "long", "steps": 100, "mixture": {"a": 1}}])
    start = {"from": {"run": "trunk", "step": 50}}
    branch = make_recipe([{"name": "short", "steps": 10, "mixture": {"b": 1}}], caps={"b": {"tokens": 64}}, **start)
    facts = account(branch, {"a": 5000, "b": 700})
    assert [stage["name"] for stage in facts["stages"]] == ["short"] and set(facts["sources"]) == {"b"}
    assert facts["notices"] == ["train.from: left out with all caps, as what run 'trunk' read is not known here"]
    assert [row["first_token"] for row in facts["curve"]] == [50 * 64]
    assert facts["warnings"] == []  # 640 tokens of 700, whatever the trunk read
    free = make_recipe([{"name": "short", "steps": 10, "mixture": {"b": 1}}], **start)
    whole = account(resolve_from(free, trunk), {"a": 5000, "b": 700})
    assert [(stage["name"], stage["own"], stage["tokens"]) for stage in whole["stages"]] == (
        [("long", False, 3200), ("short", True, 640)]
    )
    assert whole["sources"]["a"]["epochs"] == pytest.approx(0.64) and whole["notices"] == []


def test_smollm3s_maths_is_read_about_five_times() -> None:
    """DATA-05: with the 54B tokens of the playbook, and a warning where a source goes beyond."""
    facts = account(load_recipe(MIXTURES / "smollm3.yaml"), {"finemath": 34 * 10**9, "infiwebmath": 20 * 10**9})
    base = facts["stages"][0]["sources"]
    assert base["finemath"]["epochs"] == pytest.approx(4.07, abs=0.01)
    assert [line.split(":")[0] for line in facts["warnings"]] == ["infiwebmath"]
