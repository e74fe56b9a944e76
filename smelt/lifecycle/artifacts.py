"""The steps whose results runs share: corpus, tokenizer, shards, each at `artifacts/KIND/FINGERPRINT/`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from smelt.corpus.build import build_corpus, corpus_inputs
from smelt.corpus.stages.hearing import Progress
from smelt.dataset.build import build_shards, shards_inputs
from smelt.dataset.long import build_long, long_inputs, open_long
from smelt.dataset.packing import packed_sources
from smelt.dataset.shards import Shards, open_sources
from smelt.files import check_directory, fingerprint
from smelt.recipe.schema import Recipe
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.tokenizer.train import build_tokenizer, tokenizer_inputs

Step = Callable[[str, Path, Callable[[Path], object]], Path]


@dataclass(frozen=True)
class Artifacts:
    """What training reads; `shards` is None when every source is ready-made shards, `long` are the folders of sources
    made of the long documents of others, by name, and in `packing` are the windows that sources were packed into."""

    tokenizer: Tokenizer
    shards: Path | None
    long: Mapping[str, Path] = field(default_factory=dict)
    packing: Path | None = None

    def sources(self, recipe: Recipe) -> dict[str, Shards]:
        """Every source of the recipe, opened, in its order; InputError as `open_sources`."""
        opened = open_sources(recipe, self.shards, self.tokenizer)
        opened |= {name: open_long(folder) for name, folder in self.long.items()}
        for shards in opened.values():
            shards.packing = self.packing
        return opened


def ensure(kind: str, path: Path, build: Callable[[Path], object]) -> Path:
    """Build `path` unless it is there whole; one that is damaged is named, never silently rebuilt over."""
    if path.exists():
        check_directory(path, contents=False)
    else:
        build(path)
    return path


def corpus(recipe: Recipe, project: Path, step: Step = ensure, progress: Progress | None = None) -> Path:
    """The clean documents of the recipe's `corpus` section; what its stages leave is shared as well."""
    recipe.section("corpus")
    artifacts = project / "artifacts"
    path = artifacts / "corpus" / fingerprint(corpus_inputs(recipe))
    return step("corpus", path, lambda out: build_corpus(recipe, out, progress, artifacts))


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
    shards = None
    if documents is not None:
        key = fingerprint(shards_inputs(recipe, documents.name, loaded.hash))
        path = project / "artifacts" / "shards" / key
        shards = step("shards", path, lambda out: build_shards(recipe, documents, loaded, out))
    long = _long(recipe, shards, loaded, project, step)
    ready = Artifacts(loaded, shards, long, project / "artifacts" / "packing")
    _pack(recipe, ready, step)
    return ready


def _pack(recipe: Recipe, ready: Artifacts, step: Step) -> None:
    wanted = packed_sources(recipe) if recipe.train is not None else []
    sources = ready.sources(recipe) if wanted else {}
    for name, sequence in wanted:
        source, span = sources[name], recipe.dataset.span
        path = source.table_path(span, sequence)
        assert path is not None
        step(f"packing-{name}-{sequence}", path, partial(source.write_packed, span, sequence))


def _long(recipe: Recipe, shards: Path | None, loaded: Tokenizer, project: Path, step: Step) -> dict[str, Path]:
    sources = open_sources(recipe, shards, loaded) if recipe.dataset.long else {}
    made = {}
    for name, section in recipe.dataset.long.items():
        source = sources[section.of]
        path = project / "artifacts" / "long" / fingerprint(long_inputs(section, source))
        made[name] = step(f"long-{name}", path, partial(build_long, name, section, source, loaded))
    return made


def _tokenizer(recipe: Recipe, documents: Path | None, project: Path, step: Step) -> Path:
    key = fingerprint(tokenizer_inputs(recipe, documents.name if documents else ""))
    path = project / "artifacts" / "tokenizer" / key
    return step("tokenizer", path, lambda out: build_tokenizer(recipe, documents, out))
