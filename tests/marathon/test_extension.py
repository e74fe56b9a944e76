"""The parts that docs/extending.md shows train, count, decode with a cache, and are refused on export by name."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from smelt.dataset.shards import open_sources
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.marathon.run import Outcome, train_run
from smelt.model.cache import Cache
from smelt.model.decoder import Decoder
from smelt.model.families import export_model
from smelt.model.init import initialise
from smelt.model.load import load_model
from smelt.recipe.account import cache_bytes, forward_flops, parameters
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model
from smelt.train.checkpoints import checkpoint_path
from smelt.train.records import rows

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
LAYERS = (
    "model.layers=4",
    "model.feedforward={kind: 'reglu:ReGLU', width: 48}",
    "model.per_layer=[{layers: '1::2', position: {kind: none}, "
    "attention: {kind: 'shared_key_value:SharedKeyValue', heads: 2, head_dim: 8}}]",
)
SHORT = ("train.stages.0.steps=4", "train.stages.1.steps=4", "train.checkpoints.every_steps=2", "evals.tasks=[]")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of the examples, importable."""
    folder = shutil.copytree(EXAMPLES, tmp_path / "parts")
    monkeypatch.syspath_prepend(folder)
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)
    return folder


def small(workshop: Any, name: str = "e", *changes: str) -> Recipe:
    recipe: Recipe = workshop.load(name, *LAYERS, *SHORT, *changes)
    return recipe


def decoder(section: Model, vocab: int = 61) -> Decoder:
    model = Decoder(section.model_copy(update={"init": section.init.model_copy(update={"std": 0.2})}), vocab)
    initialise(model, 0)
    return model.eval()


def train(workshop: Any, recipe: Recipe, resume: bool = False) -> Outcome:
    ready = prepare(recipe, workshop.project)
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    return train_run(recipe, workshop.project / "runs" / recipe.name, ready.tokenizer, sources, resume=resume)


def test_the_recipe_that_the_page_prints_is_read(parts: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    model = Recipe.model_validate({"name": "page", **YAML(typ="safe").load(block)}).section("model")
    kinds = [layer.attention.kind.partition(":")[2] or layer.attention.kind for layer in model.each_layer]
    assert kinds == ["gqa", "gqa", "gqa", "SharedKeyValue"] * 2
    built = Decoder(model, 512)
    assert sum(each.numel() for each in built.parameters()) == parameters(model, 512)["total"]


def test_their_accounts_are_those_of_the_modules(workshop, parts: Path) -> None:
    section = small(workshop).section("model")
    model = decoder(section)
    assert parameters(section, 61)["total"] == sum(each.numel() for each in model.parameters())
    assert cache_bytes(section, 20, value_bytes=4) == Cache(model, 1, 20).bytes
    assert forward_flops(section, 61, 20) > 2 * (parameters(section, 61)["total"] - 32 * 9)


def test_cached_decoding_is_the_whole_forward_pass_and_documents_stay_apart(workshop, parts: Path) -> None:
    model = decoder(small(workshop).section("model"))
    tokens = torch.randint(0, 61, (2, 16), generator=torch.Generator().manual_seed(0))
    starts = torch.tensor([[0] * 5 + [5] * 11, [0] * 16], dtype=torch.int32)
    with torch.no_grad():
        whole = model(tokens, starts)
        cache = Cache(model, 2, 16)
        pieces = [
            model(tokens[:, span], starts[:, span], cache=cache) for span in (slice(7), slice(7, 8), slice(8, 16))
        ]
        torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(tokens[:1, 5:]), whole[:1, 5:], atol=1e-5, rtol=0)


def test_they_train_save_and_load(workshop, parts: Path) -> None:
    outcome = train(workshop, small(workshop, "own-parts", "train.optimizer.lr=2e-2"))
    losses = [row["loss"] for row in rows(outcome.run / "metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.1
    loaded = load_model(checkpoint_path(outcome.run, 8))
    assert type(loaded.layers[1].attention).__name__ == "SharedKeyValue"
    assert type(loaded.layers[1].feedforward).__name__ == "ReGLU"


def test_a_changed_file_is_refused_on_resume_and_on_loading(workshop, parts: Path) -> None:
    recipe = small(workshop, "changed-part")
    run = train(workshop, recipe).run
    shutil.rmtree(checkpoint_path(run, 8))
    file = parts / "shared_key_value.py"
    file.write_text(file.read_text().replace("head_dim**-0.5", "head_dim**-0.25"))
    with pytest.raises(InputError, match=r"cannot resume with a changed recipe: model\.per_layer"):
        train(workshop, small(workshop, "changed-part"), resume=True)
    with pytest.raises(InputError, match=r"SharedKeyValue': .*shared_key_value\.py has changed since"):
        load_model(checkpoint_path(run, 6))


def test_export_is_refused_and_names_the_part(workshop, parts: Path, tmp_path: Path) -> None:
    model = decoder(small(workshop).section("model"))
    with pytest.raises(InputError, match="shared_key_value:SharedKeyValue"):
        export_model(model, tmp_path / "out", context=64)
    assert not (tmp_path / "out").exists()


def test_a_layer_that_it_does_not_fit_is_refused_when_the_recipe_is_read(workshop, parts: Path) -> None:
    with pytest.raises(InputError, match="a key that is a value cannot be rotated; give these layers position"):
        small(workshop, "e", "model.per_layer.0.position.kind=rope")
