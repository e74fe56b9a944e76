"""A run that starts from a checkpoint: what fits is loaded, what the recipe changes is applied, listed and recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from smelt.dataset.shards import open_sources
from smelt.errors import InputError
from smelt.lifecycle.artifacts import prepare
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.marathon.run import Outcome, train_run
from smelt.model.decoder import Decoder
from smelt.model.families import import_model
from smelt.model.init import initialise
from smelt.model.load import load_model
from smelt.model.warm import resolved, warm_decoder
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model
from smelt.tokenizer.train import train_tokenizer
from smelt.train.checkpoints import checkpoint_path
from smelt.train.records import rows

SHORT = ("train.stages.0.steps=3", "train.stages.1.steps=3", "train.checkpoints.every_steps=2", "evals.tasks=[]")
VOCAB = 500  # the tiny tokenizer's models have 512


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers wrote."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        rope_theta=10_000.0,
    )
    folder: Path = tmp_path_factory.mktemp("llama") / "hf"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def warm(workshop: Any, name: str, folder: Path, fields: str = "", *overrides: str) -> Recipe:
    """The tiny recipe, its model a start from `folder`."""
    model = f"model={{load: {folder}{', ' if fields else ''}{fields}}}"
    path = workshop.project / "warm.yaml"
    path.write_text((workshop.project / "tiny.yaml").read_text().replace(MODEL, ""))
    return load_recipe(path, [f"name={name}", model, *SHORT, *overrides])


MODEL = """\
model:
  hidden: 32
  layers: 2
  attention: {heads: 2, kv_heads: 1}
  feedforward: {width: 64}
"""


def train(workshop: Any, recipe: Recipe, resume: bool = False) -> tuple[Outcome, list[str]]:
    ready = prepare(recipe, workshop.project)
    said: list[str] = []
    run = workshop.project / "runs" / recipe.name
    sources = open_sources(recipe, ready.shards, ready.tokenizer)
    return train_run(recipe, run, ready.tokenizer, sources, resume=resume, say=said.append), said


def started(workshop: Any, recipe: Recipe) -> tuple[Decoder, list[str]]:
    recipe = resolved(recipe)
    return warm_decoder(recipe.section("model"), prepare(recipe, workshop.project).tokenizer, torch.float32, 0)


def test_an_unchanged_start_is_the_checkpoint_with_a_grown_vocabulary(workshop, llama: Path) -> None:
    model, changes = started(workshop, warm(workshop, "w", llama))
    old = import_model(llama)
    assert changes == ["vocabulary: 500 -> 512, the new rows drawn from the seed"]
    for name, tensor in old.state_dict().items():
        assert torch.equal(model.state_dict()[name][: len(tensor)], tensor), name
    tokens = torch.arange(60).view(2, 30)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(tokens)[..., :VOCAB], old(tokens), atol=1e-6, rtol=0)


def test_new_rows_are_those_of_a_model_without_a_checkpoint(workshop, llama: Path) -> None:
    model, _ = started(workshop, warm(workshop, "w", llama))
    fresh = Decoder(model.config, 512)
    initialise(fresh, 0)
    for name in ("embedding.weight", "head.weight"):
        assert torch.equal(model.state_dict()[name][VOCAB:], fresh.state_dict()[name][VOCAB:])


def test_theta_changes_what_is_computed_and_no_weight(workshop, llama: Path) -> None:
    """ARCH-09: the base frequency is changed at load time."""
    model, changes = started(workshop, warm(workshop, "w", llama, "position: {theta: 2.0e6}"))
    assert changes[0] == "position.theta: 10000.0 -> 2000000.0"
    old = import_model(llama)
    assert all(torch.equal(model.state_dict()[name][: len(it)], it) for name, it in old.state_dict().items())
    tokens = torch.arange(60).view(2, 30)
    with torch.no_grad():
        assert (model.eval()(tokens)[..., :VOCAB] - old(tokens)).abs().max() > 1e-4


def test_layers_lose_their_positions_and_gain_normalised_queries(workshop, llama: Path) -> None:
    fields = "attention: {qk_norm: head}, per_layer: [{layers: '3::4', position: {kind: none}}]"
    model, changes = started(workshop, warm(workshop, "w", llama, fields))
    assert [layer.position.kind for layer in model.config.each_layer] == ["rope", "rope", "rope", "none"]
    text = "\n".join(changes)
    assert "attention.qk_norm: None -> head" in text
    assert "per_layer.0.layers: None -> 3::4" in text
    assert "(4 tensors): new, drawn from the seed" in text
    with torch.no_grad():
        assert model(torch.arange(8)[None]).isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("feedforward: {width: 64}", "'layers.0.feedforward.gate.weight' is [48, 32] in"),
        ("attention: {heads: 8}", "'layers.0.attention.q.weight' is [32, 32] in"),
        ("attention: {kv_heads: 3}", "cannot be applied to"),
        ("position: {fraction: 2}", "position.rope.fraction"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_by_name(workshop, llama: Path, fields: str, message: str) -> None:
    fields = fields.replace("heads: 8", "heads: 8, head_dim: 8")
    with pytest.raises(InputError) as caught:
        started(workshop, warm(workshop, "w", llama, fields))
    assert message in str(caught.value)


def test_a_tokenizer_that_gives_ids_to_other_tokens_is_refused(workshop, llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "with-tokenizer")
    recipe = warm(workshop, "w", folder)
    prepare(recipe, workshop.project).tokenizer.save(folder)
    started(workshop, recipe)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    first, second = list(vocab)[300:302]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="so the weights would be read for other tokens"):
        started(workshop, recipe)


def test_a_vocabulary_does_not_shrink(workshop, llama: Path) -> None:
    recipe = resolved(warm(workshop, "w", llama))
    small = train_tokenizer(384, ["a few words"])
    with pytest.raises(InputError, match=r"tokenizer: has \d+ tokens, the checkpoint .* a vocabulary of 500"):
        warm_decoder(recipe.section("model"), small, torch.float32, 0)


def test_it_trains_on_records_the_changes_and_resumes_without_the_checkpoint(
    workshop, llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(llama, tmp_path / "start")
    recipe = warm(workshop, "warmed", folder, "position: {theta: 2.0e6}")
    outcome, said = train(workshop, recipe)
    assert outcome.done and any("position.theta: 10000.0 -> 2000000.0" in line for line in said)
    [event] = [row for row in rows(outcome.run / "events.jsonl") if row["kind"] == "warm_start"]
    assert event["load"] == str(folder) and "position.theta: 10000.0 -> 2000000.0" in event["changes"]
    frozen = load_recipe(outcome.run / "recipe.yaml")
    assert isinstance(frozen.model, Model) and frozen.model.load == str(folder) and frozen.model.hidden == 32
    trained = load_model(checkpoint_path(outcome.run, 6))
    assert (trained.vocab, trained.config.position.theta) == (512, 2e6)

    weights = (checkpoint_path(outcome.run, 6) / "model.safetensors").read_bytes()
    shutil.rmtree(checkpoint_path(outcome.run, 6))
    (folder / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"cannot resume with a changed recipe: model\.source"):
        train(workshop, recipe, resume=True)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"goes on with its own recipe, runs/RUN/recipe\.yaml"):
        train(workshop, recipe, resume=True)
    again, said = train(workshop, load_recipe(outcome.run / "recipe.yaml"), resume=True)
    assert again.done and "resuming from" in said[0] and not any("starting from" in line for line in said)
    assert (checkpoint_path(outcome.run, 6) / "model.safetensors").read_bytes() == weights


def test_a_run_begins_where_another_ended_and_its_key_knows_the_checkpoint(workshop, llama: Path) -> None:
    first, _ = train(workshop, warm(workshop, "first", llama))
    recipe = warm(workshop, "second", checkpoint_path(first.run, 6))
    ready = prepare(recipe, workshop.project)
    model, changes = started(workshop, recipe)
    assert changes == []
    assert all(
        torch.equal(it, model.state_dict()[name])
        for name, it in load_model(checkpoint_path(first.run, 6)).state_dict().items()
    )
    assert ready.tokenizer.padded == model.vocab

    keys = []
    for step in (4, 6):
        steps = Steps(workshop.project / f"timings-{step}.json", lambda text: None)
        recipe = warm(workshop, f"from-{step}", checkpoint_path(first.run, step))
        pretrain(recipe, workshop.project, resume=True, steps=steps)
        pretrain(recipe, workshop.project, resume=True, steps=steps)
        assert steps.ran.count("train") == 1
        keys.append(steps.seconds["train"]["key"])
    assert keys[0] != keys[1]


def test_a_whole_section_with_load_starts_from_there_too(workshop, llama: Path) -> None:
    section = import_model(llama).config.model_dump(mode="json", exclude_none=True)
    recipe = warm(workshop, "w", llama)
    whole = Recipe.model_validate(
        {**recipe.model_dump(), "model": {**section, "load": str(llama), "attention": {"heads": 4, "kv_heads": 4}}}
    )
    with pytest.raises(InputError, match=r"'layers.0.attention.k.weight' is \[16, 32\]"):
        started(workshop, whole)


def test_no_checkpoint_at_the_place_is_said_with_what_to_give(workshop, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.load: .*nowhere: not a model folder"):
        resolved(warm(workshop, "w", tmp_path / "nowhere"))
