"""Parts of the user's own: a mistake in the recipe or in the file is one line that names it."""

import time
from pathlib import Path

import pytest

from smelt.errors import InputError
from smelt.recipe.dump import diff, to_yaml
from smelt.recipe.load import load_recipe
from smelt.recipe.parts.custom import unchanged_class

FILE = """\
from smelt.recipe.parts.custom import Custom
from smelt.recipe.parts.part import Counts

class Mine:
    class Config(Custom):
        width: int
        depth: int = 1
        def check(self, around):
            if self.width > around.hidden:
                raise ValueError(f"width ({self.width}) must not exceed hidden ({around.hidden})")
        def count(self, around):
            return Counts.dense(self.width * around.hidden)
        def flops(self, around, sequence):
            return 2 * self.width * around.hidden

class NoConfig:
    pass

class Uncounted:
    class Config(Custom):
        def count(self, around):
            return Counts.dense(0)
"""
RECIPE = """\
name: own
model:
  hidden: 64
  layers: 2
  attention: {kind: "MODULE:Mine", width: 32}
  feedforward: {width: 128}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a part in a package, named after the test so that each imports its own."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / f"parts_{time.time_ns()}"
    package.mkdir()
    (package / "own.py").write_text(FILE)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("MODULE", f"{package.name}.own"))
    return package / "own.py"


def change(old: str, new: str) -> None:
    text = Path("recipe.yaml").read_text()
    assert old in text
    Path("recipe.yaml").write_text(text.replace(old, new, 1))


def test_a_part_is_read_checked_and_frozen_with_the_hash_of_its_file(project: Path) -> None:
    loaded = load_recipe("recipe.yaml")
    part = loaded.model.attention
    assert (part.width, part.depth) == (32, 1)
    assert len(part.source) == 16
    Path("frozen.yaml").write_text(to_yaml(loaded))
    assert diff(loaded, load_recipe("frozen.yaml")) == []
    assert unchanged_class(part).__name__ == "Mine"


def test_slices_merge_into_a_part_of_ones_own(project: Path) -> None:
    model = load_recipe("recipe.yaml", ["model.per_layer=[{layers: 1, attention: {depth: 3}}]"]).model
    assert [(layer.attention.width, layer.attention.depth) for layer in model.each_layer] == [(32, 1), (32, 3)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("own:Mine", "owm:Mine", "recipe.yaml:5: model.attention: kind 'PARTS.owm:Mine': cannot import 'PARTS.owm' ("),
        ("own:Mine", "own:Mein", "own.py has no 'Mein'; check the name"),
        ("own:Mine", "own:NoConfig", "'NoConfig' has no Config that extends smelt.recipe.parts.custom.Custom"),
        ("own:Mine", "own:Uncounted", "its Config has no flops(); write it, so that its cost is known"),
        ("width: 32", "widht: 32", "recipe.yaml:5: model.attention.width: required, but missing; add it"),
        (
            "width: 32",
            "width: 32, heads: 4",
            "recipe.yaml:5: model.attention.heads: kind 'PARTS.own:Mine' has no 'heads'; it has width, depth",
        ),
        ("width: 32", "width: wide", "recipe.yaml:5: model.attention.width: input should be a valid integer"),
        ("width: 32", "width: 65", "recipe.yaml:5: model.attention: width (65) must not exceed hidden (64)"),
    ],
)
def test_a_mistake_is_named(project: Path, old: str, new: str, message: str) -> None:
    change(old, new)
    with pytest.raises(InputError) as caught:
        load_recipe("recipe.yaml")
    assert message.replace("PARTS", project.parent.name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_imported_is_named_with_its_error(project: Path) -> None:
    project.write_text("def broken(:\n")
    with pytest.raises(InputError, match=r"recipe\.yaml:5: model\.attention: .*SyntaxError: .* \(own\.py, line 1\)"):
        load_recipe("recipe.yaml")


def test_a_changed_file_is_read_anew_and_no_longer_fits_what_was_frozen(project: Path) -> None:
    before = load_recipe("recipe.yaml")
    Path("frozen.yaml").write_text(to_yaml(before))
    project.write_text(FILE.replace("depth: int = 1", "depth: int = 20"))
    after = load_recipe("recipe.yaml")
    assert after.model.attention.depth == 20
    assert "model.attention.source" in [each.key for each in diff(before, after)]
    with pytest.raises(InputError, match=r"own\.py has changed since this recipe was frozen; restore it, or drop"):
        unchanged_class(load_recipe("frozen.yaml").model.attention)
