"""The model section: slices of layers, kinds that merge or replace, and combinations that cannot be."""

from pathlib import Path
from typing import Any

import pytest

from smelt.errors import InputError
from smelt.recipe.dump import diff, to_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.plan import Plan
from smelt.recipe.sections.model import Model, WarmStart

RECIPE = """\
name: tiny
model:
  hidden: 64
  layers: 4
  attention: {heads: 4, kv_heads: 2}
  position: {kind: rope, theta: 10000}
  feedforward: {width: 128}
  per_layer:
    - {layers: "3::4", position: {kind: none}}
"""
ATTENTION = "attention: {heads: 4, kv_heads: 2}"
POSITION = "position: {kind: rope, theta: 10000}"
FEEDFORWARD = "feedforward: {width: 128}"
SLICE = '{layers: "3::4", position: {kind: none}}'


def write(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in RECIPE
    (folder / "recipe.yaml").write_text(RECIPE.replace(old, new, 1))
    return folder / "recipe.yaml"


def section(**changes: Any) -> Model:
    shape = {"hidden": 64, "layers": 4, "attention": {"heads": 4, "kv_heads": 2}, "feedforward": {"width": 128}}
    return Model.model_validate({**shape, **changes})


def test_a_slice_of_the_same_kind_merges_another_replaces_and_the_later_wins() -> None:
    model = section(
        position={"kind": "rope", "theta": 1e4, "scaling": {"kind": "yarn", "factor": 4, "original": 64}},
        per_layer=[
            {"layers": "1:", "position": {"scaling": {"factor": 8}}},
            {
                "layers": "2:",
                "attention": {"kind": "mla", "heads": 2, "kv_rank": 8, "nope_dim": 4, "rope_dim": 4, "value_dim": 4},
            },
            {"layers": -1, "attention": {"heads": 3}, "norm": {"placement": "post"}},
        ],
    )
    assert [layer.attention.kind for layer in model.each_layer] == ["gqa", "gqa", "mla", "mla"]
    assert [layer.position.scaling.factor for layer in model.each_layer] == [4, 8, 8, 8]
    assert [layer.position.scaling.original for layer in model.each_layer] == [64] * 4
    assert [layer.attention.heads for layer in model.each_layer] == [4, 4, 2, 3]
    assert [layer.norm.placement for layer in model.each_layer] == ["pre", "pre", "pre", "post"]


def test_rnope_removes_the_rotation_from_exactly_every_4th_layer() -> None:
    """ARCH-11."""
    model = section(layers=36, per_layer=[{"layers": "3::4", "position": {"kind": "none"}}])
    assert [index for index in range(36) if model.each_layer[index].position.kind == "none"] == list(range(3, 36, 4))


def test_a_null_in_a_slice_takes_a_field_away_and_survives_the_frozen_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, ATTENTION, "attention: {heads: 4, kv_heads: 2, window: 8}")
    loaded = load_recipe(path, ["model.per_layer=[{layers: '1::2', attention: {window: null}}]"])
    assert [loaded.model.each_layer[index].attention.window for index in range(4)] == [8, None, 8, None]
    (tmp_path / "frozen.yaml").write_text(to_yaml(loaded))
    assert diff(loaded, load_recipe(tmp_path / "frozen.yaml")) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kv_heads: 2", "kv_heads: 3", "recipe.yaml:5: model.attention: heads (4) must be divisible by kv_heads (3)"),
        ("heads: 4", "heads: 6", "recipe.yaml:5: model.attention: hidden (64) must be divisible by heads (6)"),
        ("kv_heads: 2", "kv_heads: 2, window: 8, chunk: 8", "model.attention: window (8) and chunk (8) exclude each"),
        ("kv_heads: 2", "kv_heads: 2, sink_tokens: 4", "sink_tokens (4) needs a window"),
        ("kv_heads: 2", "kv_heads: 2, windw: 4", "model.attention.windw: unknown key; did you mean 'window'?"),
        ("kv_heads: 2", "kv_heads: 2, kv_rank: 4", "model.attention.kv_rank: kind 'gqa' has no 'kv_rank' ('mla' has)"),
        (
            ATTENTION,
            "attention: {kind: gqa2, heads: 4, kv_heads: 2}",
            "recipe.yaml:5: model.attention.kind: unknown kind 'gqa2'; known kinds: 'gqa', 'mla'",
        ),
        (
            ATTENTION,
            "attention: {kind: none, window: 8}",
            "recipe.yaml:5: model.attention.window: kind 'none' has no 'window' ('gqa' has); drop it, or change",
        ),
        (
            ATTENTION,
            "attention: {kind: mla, heads: 4, nope_dim: 8, rope_dim: 8, value_dim: 8}",
            "recipe.yaml:5: model.attention.kv_rank: required, but missing; add it",
        ),
        (
            ATTENTION,
            "attention: {kind: mla, heads: 4, kv_rank: 8, nope_dim: 8, rope_dim: 7, value_dim: 8}",
            "recipe.yaml:5: model.attention: rope_dim (7) must be even",
        ),
        (
            POSITION,
            "position: {kind: none, theta: 5}",
            "recipe.yaml:6: model.position.theta: kind 'none' has no 'theta' ('rope' has); drop it, or change the kind",
        ),
        (POSITION, "position: {kind: rope, thet: 5}", "recipe.yaml:6: model.position.thet: unknown key; did you mean"),
        (POSITION, "position: {kind: rope, theta: 1}", "model.position.theta: input should be greater than 1, got 1"),
        (
            POSITION,
            "position: {kind: rope, scaling: {kind: linear, factor: 2, original: 8}}",
            "model.position.scaling.original: kind 'linear' has no 'original' ('dual_chunk', 'llama3', 'yarn' have)",
        ),
        (
            FEEDFORWARD,
            "feedforward: {kind: moe, experts: 4, top_k: 5, width: 8}",
            "recipe.yaml:7: model.feedforward: top_k (5) must not exceed experts (4)",
        ),
        (
            FEEDFORWARD,
            "feedforward: {width: 8, experts: 4}",
            "model.feedforward.experts: kind 'swiglu' has no 'experts' ('moe' has)",
        ),
        (
            FEEDFORWARD,
            "feedforward: {kind: relu2}",
            "recipe.yaml:7: model.feedforward.width: required, but missing; add it",
        ),
        (
            SLICE,
            "{layers: 1, position: {kind: none, theta: 5}}",
            "recipe.yaml:9: model.per_layer.0.position.theta: kind 'none' has no 'theta' ('rope' has)",
        ),
        (
            SLICE,
            "{layers: 1, attention: {kind: none, window: 8}}",
            "recipe.yaml:9: model.per_layer.0.attention.window: kind 'none' has no 'window' ('gqa' has)",
        ),
        (
            SLICE,
            "{layers: 1, attention: {kv_heads: 3}}",
            "recipe.yaml:9: model.per_layer.0.attention: heads (4) must be divisible by kv_heads (3)",
        ),
        (
            SLICE,
            "{layers: 1, attention: {heads: 12}}",
            "recipe.yaml:9: model.per_layer.0.attention: hidden (64) must be divisible by heads (12)",
        ),
        (
            SLICE,
            "{layers: 1, attention: {kind: mla, heads: 4}}",
            "recipe.yaml:9: model.per_layer.0.attention.kv_rank: required, but missing; add it",
        ),
        (
            SLICE,
            "{layers: 1, feedforward: {kind: mo}}",
            "recipe.yaml:9: model.per_layer.0.feedforward.kind: unknown kind 'mo'; known kinds: 'swiglu'",
        ),
        (
            SLICE,
            "{layers: 1, attention: {window: wide}}",
            "recipe.yaml:9: model.per_layer.0.attention.window: expected a number such as 4096, 4k or 2.36M, got",
        ),
        (
            SLICE,
            "{layers: 1, norm: {placment: post}}",
            "recipe.yaml:9: model.per_layer.0.norm.placment: unknown key",
        ),
        (
            SLICE,
            "{layers: 2, attention: {kind: none}, feedforward: {kind: none}}",
            "layer 2 has neither attention nor feedforward; give it one of them",
        ),
        (
            SLICE,
            "{layers: 2, position: {kind: learned, length: 8}}",
            "recipe.yaml:9: model.per_layer.0.position: 'learned' is for the whole model; set model.position",
        ),
        (SLICE, "{layers: 4, norm: {eps: 1}}", "model.per_layer.0.layers: '4' selects none of the 4 layers"),
        (SLICE, "{layers: one, norm: {eps: 1}}", "model.per_layer.0.layers: 'one' selects none of the 4 layers"),
        (SLICE, '{layers: "0:1:2:3", norm: {eps: 1}}', "layers: '0:1:2:3' selects none of the 4 layers"),
        (SLICE, "{layers: 1, window: 8}", "recipe.yaml:9: model.per_layer.0.window: unknown key"),
    ],
)
def test_an_impossible_model_is_refused_when_the_recipe_is_read(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write(tmp_path, old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_inside_a_parallel_branch_is_named(tmp_path: Path) -> None:
    branches = "[{mixer: {heads: 4, kv_heads: 2}}, {mixer: {kind: mamba2, heads: 4, head_dim: 8, stat: 8}}]"
    with pytest.raises(InputError) as caught:
        load_recipe(write(tmp_path, ATTENTION, f"attention: {{kind: parallel, branches: {branches}}}"))
    assert "recipe.yaml:5: model.attention.branches.1.mixer.st" in str(caught.value)


def test_a_mapping_with_load_and_no_shape_is_a_warm_start(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: tiny\nmodel: {load: runs/a, position: {theta: 2.0e6}}\n")
    assert isinstance(load_recipe(path).model, WarmStart)
    assert isinstance(load_recipe(write(tmp_path, "  hidden: 64", "  hidden: 64\n  load: runs/a")).model, Model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("layers: 3", "model.layers: unknown key"),
        ("positon: {theta: 5}", "model.positon: unknown key; did you mean 'position'?"),
        ("position: {thet: 5}", "model.position.thet: no kind of position has a field 'thet'; did you mean 'theta'?"),
        ("attention: {kind: mla, window: 5}", "model.attention.window: kind 'mla' has no 'window' ('gqa' has)"),
        ("attention: {kind: mlb}", "model.attention.kind: unknown kind 'mlb'; known kinds: 'gqa', 'mla'"),
        ("per_layer: [{layers: 0, norm: {ep: 5}}]", "model.per_layer.0.norm.ep: no kind of norm has a field 'ep'"),
    ],
)
def test_a_misspelt_change_of_a_checkpoint_is_refused_before_the_checkpoint_is_read(
    tmp_path: Path, fields: str, message: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: tiny\nmodel:\n  load: nowhere\n  {fields}\n")
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert f"recipe.yaml:4: {message}" in str(caught.value)


STAGES = """\
dataset: {shards: {web: web}}
train:
  sequence: 4Ki
  batch_tokens: 2359296
  stages:
    - {name: base, steps: 10, mixture: {web: 1}}
    - {name: long-32k, steps: 20k, sequence: 32Ki, mixture: {web: 1}, set: {model.position.theta: 2.0e6}}
    - {name: long-64k, steps: 22k, sequence: 64Ki, mixture: {web: 1}, set: {model.position.theta: 5.0e6}}
"""


def staged(folder: Path, old: str = "", new: str = "") -> Path:
    text = RECIPE + STAGES.replace("shards: {web: web}", "shards: {web: web}, span: 64Ki")
    assert old in text
    (folder / "recipe.yaml").write_text(text.replace(old, new, 1))
    return folder / "recipe.yaml"


def test_stages_raise_theta_as_the_extension_of_smollm3_does(tmp_path: Path) -> None:
    """MID-01, the model's side: theta 50k, 2M, 5M at 4k, 32k, 64k; 47.2B and 51.9B tokens; no other change."""
    recipe = load_recipe(staged(tmp_path, "theta: 10000", "theta: 50000"))
    segments = Plan(recipe).segments
    models = [segment.model for segment in segments]
    assert [model.position.theta for model in models] == [50e3, 2e6, 5e6]
    assert all([layer.position.kind for layer in model.each_layer] == ["rope"] * 3 + ["none"] for model in models)
    assert [model.model_copy(update={"position": models[0].position}) for model in models] == [recipe.model] * 3
    tokens = [(segment.end - segment.first) * segment.batch_tokens / 1e9 for segment in segments[1:]]
    assert [round(each, 1) for each in tokens] == [47.2, 51.9]


def test_what_a_stage_sets_stays_until_a_later_one_sets_it_again(tmp_path: Path) -> None:
    scaling = "set: {model.position.scaling: {kind: yarn, factor: 4, original: 4096}, model.attention.window: 512}"
    recipe = load_recipe(staged(tmp_path, "set: {model.position.theta: 2.0e6}", scaling))
    models = [segment.model for segment in Plan(recipe).segments]
    assert [getattr(model.position.scaling, "factor", None) for model in models] == [None, 4, 4]
    assert [model.attention.window for model in models] == [None, 512, 512]
    assert models[2].position.theta == 5e6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.hidden: 128", "recipe.yaml:16: train.stages.1: stage 'long-32k': set: 'model.hidden' cannot change"),
        ("model.position.fraction: 0.5", "'model.position.fraction' cannot change between stages; what can is model"),
        ("train.precision: bf16", "'train.precision' cannot change between stages"),
        ("model.position.theta: 0", "train.stages.1.set: model.position.rope.theta: input should be greater than 1"),
        (
            "model.per_layer.0.position.theta: 5",
            "train.stages.1.set: model.per_layer.0.position.theta: kind 'none'",
        ),
        ("model.per_layer.3.position.theta: 5", "train.stages.1.set: model.per_layer: has no entry 3"),
        ("model.attention.sink_tokens: 4", "train.stages.1.set: model.attention.gqa: sink_tokens (4) needs a window"),
    ],
)
def test_a_stage_refuses_to_set_what_changes_shapes_or_cannot_be(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(staged(tmp_path, "set: {model.position.theta: 2.0e6}", f"set: {{{setting}}}"))
    assert message in str(caught.value)
    assert "recipe.yaml:16" in str(caught.value)
