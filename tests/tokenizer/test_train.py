"""A recipe's tokenizer: trained on a sample of the corpus, drawn evenly or like the mixture, or loaded and copied."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.build import build_corpus
from smelt.errors import InputError
from smelt.files import check_directory
from smelt.recipe.schema import Recipe
from smelt.tokenizer.sample import mixture_weights, sample, shares
from smelt.tokenizer.tokenizer import load_tokenizer
from smelt.tokenizer.train import build_tokenizer, tokenizer_inputs

TRAIN = {"train": {"vocab": 400, "sample_bytes": 30_000}}


def recipe(tokenizer: dict, sources: dict | None = None) -> Recipe:
    data = {"name": "test", "tokenizer": tokenizer, **({"corpus": {"sources": sources}} if sources else {})}
    return Recipe.model_validate(data)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    sources = {}
    for name, count in (("small", 60), ("large", 3000)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{name} {index:06d} " * 5}) + "\n" for index in range(count)))
        sources[name] = {"read": {"kind": "jsonl", "path": str(path)}}
    build_corpus(recipe(TRAIN, sources), folder / "corpus")
    return folder / "corpus"


def test_a_tokenizer_is_trained_and_saved_whole(corpus: Path, tmp_path: Path) -> None:
    trained = build_tokenizer(recipe(TRAIN), corpus, tmp_path / "one")
    again = build_tokenizer(recipe(TRAIN), corpus, tmp_path / "two")
    assert trained.hash == again.hash == load_tokenizer(tmp_path / "one").hash
    assert check_directory(tmp_path / "one")["hash"] == trained.hash
    assert 272 < len(trained) <= 400


def test_a_loaded_tokenizer_is_copied(corpus: Path, tmp_path: Path) -> None:
    trained = build_tokenizer(recipe(TRAIN), corpus, tmp_path / "one")
    made = recipe({"load": str(tmp_path / "one")})
    copy = build_tokenizer(made, None, tmp_path / "two")
    assert copy.hash == trained.hash == load_tokenizer(tmp_path / "two").hash
    first = tokenizer_inputs(made, "")
    assert first == tokenizer_inputs(made, "other corpus")
    config = tmp_path / "one" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<|pad|>", "<|endoftext|>"))
    changed = tokenizer_inputs(made, "")
    assert first != changed
    (tmp_path / "one" / "notes.json").write_text("{}")
    assert tokenizer_inputs(made, "") == changed
    (tmp_path / "one" / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_inputs(made, "") != changed


def test_training_depends_on_the_corpus_and_needs_one(tmp_path: Path) -> None:
    made = recipe(TRAIN)
    assert tokenizer_inputs(made, "a") == tokenizer_inputs(made, "a") != tokenizer_inputs(made, "b")
    with pytest.raises(InputError, match=r"tokenizer\.train: needs a corpus"):
        build_tokenizer(made, None, tmp_path / "out")


def test_the_sample_is_even_over_sources_and_drawn_from_all_over_each(corpus: Path) -> None:
    """TOK-01: trained from a mixture sample."""
    taken = list(sample(corpus, 30_000))
    large = [text for text in taken if text.startswith("large")]
    assert 26_000 < sum(map(len, taken)) <= 30_000
    assert len(taken) - len(large) > 40
    numbers = [int(text.split()[1]) for text in large]
    assert min(numbers) < 100 and max(numbers) > 2900
    assert max(after - before for before, after in itertools.pairwise(numbers)) < 20


SIZES = st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), min_size=1, max_size=6)


@given(SIZES, st.integers(0, 10**6))
def test_shares_are_as_even_as_sizes_allow(sizes: dict[str, int], total: int) -> None:
    found = shares(sizes, total, dict.fromkeys(sizes, 1))
    assert list(found) == list(sizes)
    assert sum(found.values()) == min(total, sum(sizes.values()))
    full = max(found.values())
    assert all(share == sizes[name] or full - share <= 1 for name, share in found.items())


@given(SIZES, st.integers(0, 10**6), st.data())
def test_shares_follow_the_weights_as_far_as_sizes_allow(
    sizes: dict[str, int], total: int, data: st.DataObject
) -> None:
    """TOK-01: what a small source lacks is spread over the others, by their weights."""
    weights = {name: data.draw(st.sampled_from([0.0, 0.1, 0.25, 3.0])) for name in sizes}
    found = shares(sizes, total, weights)
    drawn = {name for name in sizes if weights[name] > 0}
    assert all(found[name] == 0 for name in sizes.keys() - drawn)
    assert abs(sum(found.values()) - min(total, sum(sizes[name] for name in drawn))) <= len(sizes)
    full = max((found[name] / weights[name] for name in drawn), default=0)
    assert all(found[name] == sizes[name] or full - found[name] / weights[name] <= 20 * len(sizes) for name in drawn)


MIXED = {
    "sequence": 8,
    "batch_tokens": 64,
    "stages": [
        {"name": "one", "steps": 30, "mixture": {"small": 3, "large": 1}},
        {"name": "two", "steps": 10, "mixture": {"large": 1}},
    ],
}


def mixed(corpus: Path, draw: str, stages: Sequence[dict] = MIXED["stages"]) -> Recipe:
    data = {"name": "test", "tokenizer": {"train": {**TRAIN["train"], "sample_bytes": 8000, "draw": draw}}}
    files = {name: {"read": {"kind": "jsonl", "path": f"{name}.jsonl"}} for name in ("small", "large")}
    return Recipe.model_validate({**data, "corpus": {"sources": files}, "train": {**MIXED, "stages": stages}})


def test_a_sample_can_be_drawn_like_the_mixture_of_all_stages(corpus: Path, tmp_path: Path) -> None:
    """TOK-01: 30 of 40 steps take three quarters of their tokens from the small source, 10 take none."""
    even, like = mixed(corpus, "even"), mixed(corpus, "mixture")
    weights = mixture_weights(like)
    assert weights == {"small": 0.75 * 30 / 40, "large": 0.25 * 30 / 40 + 10 / 40}
    taken = list(sample(corpus, 2000, weights))
    small = sum(len(text) for text in taken if text.startswith("small"))
    assert abs(small / sum(map(len, taken)) - weights["small"]) < 0.05
    assert tokenizer_inputs(even, "c") != tokenizer_inputs(like, "c")
    build_tokenizer(like, corpus, tmp_path / "like")


def test_a_frozen_recipe_has_the_weights_of_the_one_it_came_from(corpus: Path) -> None:
    """What a run fills in or is amended by leaves the stages as they are written, so its tokenizer stays the same."""
    like = mixed(corpus, "mixture").model_dump()
    past = [{"stage": 0, "name": "zero", "steps": 5, "sequence": 8, "batch_tokens": 64, "mixture": {"small": 1}}]
    caps = {"small": {"tokens": 500, "factor": 0.25}}
    train = {**like["train"], "caps": caps, "from": {"run": "trunk", "step": 5, "past": past}}
    amendments = [{"from_step": 20, "set": {"train.stages.1.mixture": {"small": 1}, "train.stages.0.steps": 90}}]
    frozen = Recipe.model_validate({**like, "train": train, "amendments": amendments})
    assert mixture_weights(frozen) == mixture_weights(mixed(corpus, "mixture"))


def test_long_documents_count_for_the_source_they_are_of(corpus: Path) -> None:
    stages = [{"name": "one", "tokens": 640, "mixture": {"small": 1, "long-small": 1, "large": 2}}]
    data = {**mixed(corpus, "mixture").model_dump(), "train": {**MIXED, "stages": stages}}
    data["dataset"] = {"long": {"long-small": {"of": "small", "tokens": 4}}}
    assert mixture_weights(Recipe.model_validate(data)) == {"small": 0.5, "large": 0.5}


def test_a_source_that_no_stage_draws_from_leaves_no_token(corpus: Path, tmp_path: Path) -> None:
    made = {draw: mixed(corpus, draw, MIXED["stages"][1:]) for draw in ("even", "mixture")}
    trained = {draw: build_tokenizer(each, corpus, tmp_path / draw) for draw, each in made.items()}
    assert [len(each.encode("small")) for each in trained.values()] == [1, 5]
    assert [len(each.encode("large")) for each in trained.values()] == [1, 1]


def test_without_stages_a_mixture_is_refused(corpus: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.train\.draw: 'mixture' needs a corpus and train.stages"):
        mixture_weights(recipe(TRAIN))


@pytest.mark.parametrize("change", [{"kind": "unigram"}, {"digits": "groups-of-3"}])
def test_kind_and_digits_of_the_recipe_are_trained(corpus: Path, tmp_path: Path, change: dict) -> None:
    made = recipe({"train": {**TRAIN["train"], **change}})
    model = json.loads(build_tokenizer(made, corpus, tmp_path / "one").json)
    assert model["model"]["type"] == ("Unigram" if "kind" in change else "BPE")
    assert (r"\p{N}{1,3}" in json.dumps(model["pre_tokenizer"])) == ("digits" in change)
