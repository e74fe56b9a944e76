"""The steps whose results runs share: corpus, tokenizer, shards, each at `artifacts/KIND/FINGERPRINT/`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smelt.corpus.build import build_corpus, corpus_inputs
from smelt.dataset.build import build_shards, shards_inputs
from smelt.files import check_directory, fingerprint
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.tokenizer.train import build_tokenizer, tokenizer_inputs

Step = Callable[[str, Path, Callable[[Path], object]], Path]


@dataclass(frozen=True)
class Artifacts:
    """What training reads; `shards` is None when every source is ready-made shards."""

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
    trained = recipe.section("tokenizer").train is not None
    return _tokenizer(recipe, corpus(recipe, project, step) if trained else None, project, step)


def prepare(recipe: Recipe, project: Path, step: Step = ensure) -> Artifacts:
    """Everything that training reads."""
    recipe.section("tokenizer")
    documents = corpus(recipe, project, step) if recipe.corpus else None
    folder = _tokenizer(recipe, documents, project, step) if documents else tokenizer(recipe, project, step)
    loaded = load_tokenizer(folder)
    if documents is None:
        return Artifacts(loaded, None)
    key = fingerprint(shards_inputs(recipe, documents.name, loaded.hash))
    path = project / "artifacts" / "shards" / key
    return Artifacts(loaded, step("shards", path, lambda out: build_shards(recipe, documents, loaded, out)))


def _tokenizer(recipe: Recipe, documents: Path | None, project: Path, step: Step) -> Path:
    key = fingerprint(tokenizer_inputs(recipe, documents.name if documents else ""))
    path = project / "artifacts" / "tokenizer" / key
    return step("tokenizer", path, lambda out: build_tokenizer(recipe, documents, out))
