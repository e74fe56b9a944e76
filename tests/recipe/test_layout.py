"""A layout that does not fit is refused, with the field to change, before any process starts."""

from pathlib import Path
from typing import Any

import pytest

from smelt.errors import InputError
from smelt.recipe.layout import check_layout
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe

RECIPE = """\
name: layouts
dataset: {span: 1Ki, shards: {text: /nowhere}}
model:
  hidden: 48
  layers: 4
  attention: {heads: 6, kv_heads: 3}
  feedforward: {width: 48}
train:
  sequence: 96
  batch_tokens: 768
  stages: [{name: only, steps: 4, mixture: {text: 1}}]
"""
MOE = "{kind: moe, experts: 6, top_k: 2, width: 16}"
MAMBA2 = "{kind: mamba2, heads: 6, head_dim: 8, state: 8, groups: 3}"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("span: 1Ki", "span: 960"))

    def recipe(*changes: str) -> Recipe:
        return load_recipe(tmp_path / "recipe.yaml", changes)

    return recipe


def test_data_is_what_the_other_dimensions_leave(load: Any) -> None:
    layout = check_layout(load("infra.layout={context: 2, tensor: 3, zero: 3}"), 24)
    assert (layout.data, layout.context, layout.tensor, layout.zero) == (4, 2, 3, 3)
    assert check_layout(load(), 1).data == 1


@pytest.mark.parametrize(
    ("world", "changes", "words"),
    [
        (4, ["infra.layout={tensor: 3}"], "tensor 3 = 3 does not divide the 4 processes"),
        (4, ["infra.layout={data: 2}"], "= 2, but 4 processes run; set data to 'auto'"),
        (4, ["infra.layout={replicate: 3}"], "layout.replicate: 3 does not divide the 4 data processes"),
        (2, ["infra.layout={tensor: 2}"], "layout.tensor: 2 does not divide kv_heads (3) of layer 0, attention"),
        (
            3,
            ["infra.layout={tensor: 3}", "model.feedforward.width=50"],
            "layout.tensor: 3 does not divide width (50) of layer 0, feedforward",
        ),
        (5, ["infra.layout={context: 5}"], "layout.context: 5 does not divide the sequence (96) of stage 'only'"),
        (8, ["infra.layout={pipeline: 8}"], "8 x 1 stages need at least as many layers, and the model has 4"),
        (
            3,
            ["infra.layout={data: 3}"],
            "a batch of 8 rows of stage 'only' does not split evenly over 3 data processes",
        ),
        (2, ["infra.layout={pipeline: 2, schedule: interleaved}"], "schedule 'interleaved' needs 2 or more"),
        (2, ["infra.layout={pipeline: 2}", "train.batch_tokens=96"], "need at least 2 equal micro-batches"),
        (2, ["infra.layout={expert: 2}"], "layout.expert: 2, but the model has no experts"),
        (2, ["infra.layout={sequence_parallel: true}"], "sequence_parallel: needs tensor > 1"),
        (1, ["infra.layout={stages: 2}"], "layout.stages: 2, but pipeline is 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_field_to_change(
    load: Any, world: int, changes: list[str], words: str
) -> None:
    """Issue 4, bad input: one line that names the key."""
    recipe = load(*changes)
    with pytest.raises(InputError) as refusal:
        check_layout(recipe, world)
    assert str(refusal.value).startswith("infra.") and "\n" not in str(refusal.value)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("model", "layout", "words"),
    [
        (f"model.feedforward={MOE}", "{expert: 4}", "layout.expert: 4 does not divide experts (6) of layer 0"),
        (f"model.attention={MAMBA2}", "{tensor: 2}", "layout.tensor: 2 does not divide groups (3) of layer 0"),
    ],
)
def test_parts_are_shared_out_by_their_own_fields(load: Any, model: str, layout: str, words: str) -> None:
    with pytest.raises(InputError, match="infra") as refusal:
        check_layout(load(model, f"infra.layout={layout}"), 4)
    assert words in str(refusal.value)


def test_experts_are_cut_whole_where_they_have_processes_of_their_own(load: Any) -> None:
    changes = f"model.feedforward={MOE.replace('16', '15')}", "model.attention={heads: 6, kv_heads: 6}"
    assert check_layout(load(*changes, "infra.layout={expert: 2, tensor: 2}"), 4).data == 2
