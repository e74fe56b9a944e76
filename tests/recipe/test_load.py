"""Recipes load with units, includes and overrides; every mistake is one line with file, line, key and mend."""

from pathlib import Path

import pytest

from smelt.errors import InputError
from smelt.recipe.dump import diff, to_yaml
from smelt.recipe.load import json_schema, load_recipe

RECIPE = """\
name: tiny
corpus:
  sources:
    docs: {read: {kind: python-docs}}
    sums: {read: {kind: arithmetic, documents: 1k}}
tokenizer: {train: {vocab: 1Ki}}
model:
  hidden: 64
  layers: 4
  attention: {heads: 4, kv_heads: 2}
  feedforward: {width: 128}
  per_layer:
    - {layers: "3::4", position: {kind: none}}
train:
  sequence: 256
  batch_tokens: 4Ki
  optimizer:
    lr: 1e-3
  stages:
    - {name: first, tokens: 2.36M, mixture: {docs: 0.5, sums: 0.5}}
    - name: second
      steps: 10
      mixture: {sums: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_units_are_powers_of_1000_and_ki_is_1024(recipe: Path) -> None:
    loaded = load_recipe(recipe)
    assert loaded.train is not None and loaded.tokenizer is not None and loaded.tokenizer.train is not None
    assert loaded.train.stages[0].tokens == 2_360_000
    assert loaded.train.batch_tokens == 4096
    assert loaded.tokenizer.train.vocab == 1024
    assert loaded.train.optimizer.lr == 0.001
    assert load_recipe(recipe, ["train.stages.0.tokens=8T"]).train.stages[0].tokens == 8 * 10**12  # type: ignore[union-attr]


def test_a_dumped_recipe_loads_to_an_equal_one(recipe: Path, tmp_path: Path) -> None:
    """ABL-01 (round trip)."""
    loaded = load_recipe(recipe)
    (tmp_path / "dumped.yaml").write_text(to_yaml(loaded))
    assert load_recipe(tmp_path / "dumped.yaml") == loaded
    assert diff(loaded, load_recipe(tmp_path / "dumped.yaml")) == []


def test_an_include_is_changed_by_the_including_file_and_overrides_come_last(recipe: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("base: recipe.yaml\nname: child\nmodel: {layers: 8}\ntrain: {schedule: {kind: cosine}}\n")
    loaded = load_recipe(child, ["model.hidden=128"])
    assert loaded.model is not None and loaded.train is not None
    assert (loaded.name, loaded.model.layers, loaded.model.hidden) == ("child", 8, 128)
    assert loaded.train.schedule.kind == "cosine"
    assert [change.key for change in diff(load_recipe(recipe), loaded)][:3] == ["name", "model.hidden", "model.layers"]


def test_a_new_kind_replaces_a_part_and_the_same_kind_merges_into_it(recipe: Path) -> None:
    cosine = load_recipe(
        recipe, ["train.schedule.kind=wsd", "train.schedule.decay_fraction=0.2", "train.schedule.kind=cosine"]
    )
    assert cosine.train is not None and cosine.train.schedule.kind == "cosine"
    layers = load_recipe(recipe).model
    assert layers is not None
    assert [layers.each_layer[index].position.kind for index in range(4)] == ["rope", "rope", "rope", "none"]


def test_yamls_merge_keys_are_taken_over(recipe: Path) -> None:
    first = RECIPE[: RECIPE.index("    - name: second\n")]
    recipe.write_text(
        first.replace("    - {name: first", "    - &stage {name: first")
        + "    - {<<: *stage, name: second}\n"
        + "    - <<: {steps: 5, mixtures: {sums: 1}}\n      name: third\n"
    )
    with pytest.raises(InputError, match=r"recipe\.yaml:22: train\.stages\.2\.mixtures: unknown key"):
        load_recipe(recipe)
    recipe.write_text(recipe.read_text().replace("mixtures", "mixture"))
    stages = load_recipe(recipe).section("train").stages
    assert stages[1] == stages[0].model_copy(update={"name": "second"})
    assert stages[2].steps == 5


def test_an_environment_variable_in_a_value_is_expanded(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTS", "/data/texts")
    loaded = load_recipe(recipe, ["corpus.sources.docs.read={kind: jsonl, path: $TEXTS/a.jsonl}"])
    assert loaded.corpus is not None and loaded.corpus.sources["docs"].read.path == "/data/texts/a.jsonl"  # type: ignore[union-attr]
    monkeypatch.delenv("TEXTS")
    with pytest.raises(InputError, match=r"\$TEXTS is not set"):
        load_recipe(recipe, ["corpus.sources.docs.read={kind: jsonl, path: $TEXTS/a.jsonl}"])


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        ("  hidden: 64", "  hiden: 64", "recipe.yaml:8: model.hiden: unknown key; did you mean 'hidden'?"),
        ("    lr: 1e-3", "    lrr: 1e-3", "recipe.yaml:18: train.optimizer.lrr: unknown key; did you mean 'lr'?"),
        ("  sequence: 256", "  lr: 256", "recipe.yaml:15: train.lr: unknown key; did you mean 'train.optimizer.lr'?"),
        ("tokens: 2.36M", "tokens: 2.36X", "recipe.yaml:20: train.stages.0.tokens: unknown unit 'X' in '2.36X'"),
        ("tokens: 2.36M", "tokens: 8t", "train.stages.0.tokens: unknown unit 't' in '8t'; did you mean 'T'?"),
        ("tokens: 2.36M", "tokens: 1.5", "train.stages.0.tokens: expected a whole number"),
        ("kv_heads: 2", "kv_heads: 3", "recipe.yaml:10: model.attention: heads (4) must be divisible by kv_heads (3)"),
        ("{sums: 1}", "{sum: 1}", "recipe.yaml:23: train.stages.1.mixture: unknown source 'sum' in stage 'second'"),
        ("{sums: 1}", "{sums: -1}", "mixture weights must be >= 0"),
        (
            "kind: python-docs",
            "kind: python-dox",
            "recipe.yaml:4: corpus.sources.docs.read.kind: unknown kind 'python-dox'",
        ),
        (
            "{kind: python-docs}",
            "{}",
            "corpus.sources.docs.read.kind: required, but missing; known kinds: 'ari",
        ),
        ("  batch_tokens: 4Ki", "  batch_tokens: 1000", "batch_tokens (1000) must be a multiple of the sequence (256)"),
        ("steps: 10", "steps: 10\n      tokens: 5", "give exactly one of 'tokens' and 'steps'"),
        ("name: tiny", "name: [", "recipe.yaml:3: not valid YAML"),
        ("  layers: 4", "  layers: four", "recipe.yaml:9: model.layers: expected a number such as 4096, 4k or 2.36M"),
        ("  hidden: 64", "", "recipe.yaml:7: model.hidden: required, but missing; add it"),
        (
            'layers: "3::4"',
            'layers: "7::8"',
            "recipe.yaml:13: model.per_layer.0.layers: '7::8' selects none of the 4",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_file_line_key_and_mend(
    tmp_path: Path, line: str, wrong: str, message: str
) -> None:
    """ABL-02."""
    assert line in RECIPE
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace(line, wrong, 1))
    with pytest.raises(InputError) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hiden=3", "override 'model.hiden=3': model.hiden: unknown key; did you mean 'hidden'?"),
        ("train.stages.5.steps=3", "'5' is no index of a list of 2"),
        ("name.first=3", "'first' is below a plain value"),
        ("model", "expected KEY.SUBKEY=VALUE"),
    ],
)
def test_a_wrong_override_is_named(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(recipe, [override])
    assert message in str(caught.value)


def test_a_missing_recipe_and_circular_includes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe"):
        load_recipe(tmp_path / "nowhere.yaml")
    (tmp_path / "a.yaml").write_text("base: b.yaml\nname: a\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nname: b\n")
    with pytest.raises(InputError, match="include each other"):
        load_recipe(tmp_path / "a.yaml")


def test_the_json_schema_knows_every_section_and_forbids_unknown_keys() -> None:
    schema = json_schema()
    assert {"base", "name", "model", "train", "posttrain"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
