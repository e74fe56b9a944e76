"""A recipe's tokenizer: trained on an even sample of the corpus, or loaded and copied."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.corpus.build import build_corpus
from smelt.errors import InputError
from smelt.files import check_directory
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import load_tokenizer
from smelt.tokenizer.train import build_tokenizer, even_shares, sample, tokenizer_inputs

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
    assert first != tokenizer_inputs(made, "")


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


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), min_size=1, max_size=6), st.integers(0, 10**6))
def test_shares_are_as_even_as_sizes_allow(sizes: dict[str, int], total: int) -> None:
    shares = even_shares(sizes, total)
    assert list(shares) == list(sizes)
    assert sum(shares.values()) == min(total, sum(sizes.values()))
    full = max(shares.values())
    assert all(share == sizes[name] or full - share <= 1 for name, share in shares.items())
