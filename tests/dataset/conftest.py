"""Recipes, tokenizers and shards that the dataset tests share."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from smelt.dataset.shards import Shards
from smelt.dataset.writer import write_shards
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.tokenizer.train import train_tokenizer

MakeRecipe = Callable[..., Recipe]
MakeShards = Callable[..., Shards]
EOS = 0


@pytest.fixture(scope="session")
def make_recipe() -> MakeRecipe:
    """`make_recipe(stages, names=..., ...)`: a recipe whose sources are folders of shards."""

    def make(
        stages: Sequence[dict[str, Any]],
        names: Iterable[str] = ("a", "b"),
        *,
        sequence: int = 8,
        batch_tokens: int = 64,
        span: int = 32,
        seed: int = 0,
        **train: Any,
    ) -> Recipe:
        return Recipe.model_validate(
            {
                "name": "test",
                "seed": seed,
                "dataset": {"shards": {name: name for name in names}, "span": span},
                "train": {"sequence": sequence, "batch_tokens": batch_tokens, "stages": list(stages), **train},
            }
        )

    return make


@pytest.fixture
def make_shards(tmp_path: Path) -> MakeShards:
    """`make_shards(name, documents, **options)`: documents of ids (under 60,000) written and opened."""

    def make(name: str, documents: Iterable[Sequence[int]], **options: Any) -> Shards:
        options = {"eos": EOS, "length": 60_000, "tokenizer": "test", **options}
        write_shards(tmp_path / name, documents, **options)
        return Shards(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def numbered() -> Callable[[int, int], list[list[int]]]:
    """`numbered(tokens, seed)`: documents of random lengths, `tokens` in all with their ends, whose ids count up from
    1, so that an id tells its place."""

    def make(tokens: int, seed: int = 0) -> list[list[int]]:
        draw = random.Random(seed)
        documents: list[list[int]] = []
        at = 0
        while at < tokens:
            end = min(tokens, at + draw.randint(1, 40))
            documents.append(list(range(at + 1, end)))
            at = end
        return documents

    return make


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A small tokenizer trained on a few lines."""
    return train_tokenizer(400, ["the quick brown fox jumps over the lazy dog", "pack my box with jugs"] * 20)
