"""The steps whose results runs share: corpus, tokenizer, shards, each at `artifacts/KIND/FINGERPRINT/`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smelt.corpus.build import build_corpus, corpus_inputs
from smelt.dataset.build import build_shards, shards_inputs
from smelt.errors import InputError
from smelt.files import check_directory, fingerprint
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.tokenizer.train import build_tokenizer, tokenizer_inputs

Step = Callable[[str, Path, Callable[[Path], object]], Path]


@dataclass(frozen=True)
class Artifacts:
    """Where a recipe's shared results lie; `corpus` and `shards` are None when every source is ready-made shards."""

    corpus: Path | None
    tokenizer_path: Path
    tokenizer: Tokenizer
    shards: Path | None


def ensure(kind: str, path: Path, build: Callable[[Path], object]) -> Path:
    """Build `path` unless it is there whole; one that is damaged is named, never silently rebuilt over."""
    if path.exists():
        check_directory(path, contents=False)
    else:
        build(path)
    return path


def corpus(recipe: Recipe, project: Path, step: Step = ensure) -> Path:
    """The clean documents of the recipe's `corpus` section."""
    recipe.section("corpus")
    path = project / "artifacts" / "corpus" / fingerprint(corpus_inputs(recipe))
    return step("corpus", path, lambda out: build_corpus(recipe, out))


def tokenizer(recipe: Recipe, project: Path, step: Step = ensure) -> Path:
    """The recipe's tokenizer, trained on its corpus or copied from where it is."""
    section = recipe.section("tokenizer")
    if section.train is not None and recipe.corpus is None:
        raise InputError(
            f"recipe '{recipe.name}': tokenizer.train needs a 'corpus' section; add one, or load a tokenizer"
        )
    documents = corpus(recipe, project, step) if section.train is not None else None
    key = fingerprint(tokenizer_inputs(recipe, documents.name if documents else ""))
    return step(
        "tokenizer", project / "artifacts" / "tokenizer" / key, lambda out: build_tokenizer(recipe, documents, out)
    )


def prepare(recipe: Recipe, project: Path, step: Step = ensure) -> Artifacts:
    """Everything that training reads."""
    documents = corpus(recipe, project, step) if recipe.corpus else None
    tokenizer_path = tokenizer(recipe, project, step)
    loaded = load_tokenizer(tokenizer_path)
    if documents is None:
        return Artifacts(None, tokenizer_path, loaded, None)
    source = documents
    key = fingerprint(shards_inputs(recipe, documents.name, loaded.hash))
    shards = step(
        "shards", project / "artifacts" / "shards" / key, lambda out: build_shards(recipe, source, loaded, out)
    )
    return Artifacts(documents, tokenizer_path, loaded, shards)
